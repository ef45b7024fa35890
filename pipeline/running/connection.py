"""Joins a Ray cluster, and gives it the prepared data."""

import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from tenacity import Retrying, stop_after_attempt

from pipeline import params
from pipeline.running import node
from pipeline.shared.errors import PipelineError, in_a_line
from pipeline.shared.paths import PARAMS, PREPARED

GIB = 1024**3
PACKAGE = Path(params.__file__).parent
SECONDS_TO_ANSWER = 10
STARTS = 3  # of a Ray of this machine, which gives itself 15 seconds (2.60), too little if it is busy


def connect() -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine. Raises PipelineError if none answers."""
    address = os.environ.get("RAY_ADDRESS", "local")
    allowed = "the HOST:PORT of a cluster that this machine has joined with `ray start` is allowed"
    host, _, port = address.rpartition(":")
    if address != "local" and not (port.isdecimal() and re.fullmatch(r"[\w.\-\[\]:]+", host)):
        raise PipelineError(f"RAY_ADDRESS: {allowed}; received {address!r}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send to its makers
    try:
        if host:  # since Ray would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        for attempt in Retrying(stop=stop_after_attempt(1 if host else STARTS), reraise=True):
            with attempt:
                ray.shutdown()
                ray.init(
                    address,
                    runtime_env={"py_modules": [str(PACKAGE)]},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
    except Exception as error:  # Ray raises almost anything
        reason = f"no answer from {address}, or this machine has not joined it with `ray start`"
        raise PipelineError(f"RAY_ADDRESS: {reason}: {in_a_line(error)}") from error


def check_room(asked: Mapping[str, Any]) -> None:
    """Raise PipelineError if no node has the `num_cpus`, `num_gpus` and bytes of `memory` that a training
    asks for, since Ray would wait for one for ever.
    """
    keys = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    nodes = [made["Resources"] for made in ray.nodes() if made["Alive"]]
    if not any(all(has.get(name, 0) >= asked[key] for key, name in keys.items()) for has in nodes):
        wanted = in_words(*(asked[key] for key in keys))
        there = "; ".join(sorted(in_words(*(has.get(name, 0) for name in keys.values())) for has in nodes))
        raise PipelineError(f"{PARAMS}: cluster: no node has {wanted}; the nodes have: {there}")


def in_words(cpus: float, gpus: float, memory: float) -> str:
    """Resources as `4 CPUs, 1 GPUs, 16 GiB`."""
    return f"{cpus:g} CPUs, {gpus:g} GPUs, {memory / GIB:.3g} GiB"


def share_data() -> tuple[str, node.Data]:
    """Put the prepared data into Ray's object store; their digest, and where they are."""
    files = node.data_files(PREPARED)
    content = {path.relative_to(PREPARED).as_posix(): np.fromfile(path, np.uint8) for path in files}
    return node.data_digest(PREPARED), [ray.put(content)]
