"""Joins a Ray cluster, or starts one on this machine."""

import logging
import os
import re
import socket
from pathlib import Path

import ray
from tenacity import Retrying, stop_after_attempt

from pipeline import params
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.paths import PARAMS

GIB = 1024**3
PACKAGE = Path(params.__file__).parent
SECONDS_TO_ANSWER = 10
STARTS = 3  # attempts to start Ray here; each has Ray's own 15 seconds (2.60), too few on a busy machine


def connect() -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine. Raises PipelineError if none answers."""
    address = os.environ.get("RAY_ADDRESS", "local")
    rule = "must be the HOST:PORT of a cluster that this machine has joined with `ray start`"
    host, _, port = address.rpartition(":")
    if address != "local" and not (port.isdecimal() and re.fullmatch(r"[\w.\-\[\]:]+", host)):
        raise PipelineError(f"RAY_ADDRESS: {rule}; received {address!r}")
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
        if not host:
            raise PipelineError(f"ray: does not start on this machine: {in_a_line(error)}") from error
        reason = f"no answer from {address}, or this machine has not joined it with `ray start`"
        raise PipelineError(f"RAY_ADDRESS: {reason}: {in_a_line(error)}") from error


def check_room(cpus: float, gpus: float, memory: float) -> int:
    """How many jobs with these CPUs, GPUs and bytes of memory the nodes have room for at a time.

    Raises PipelineError if no node has room for one: Ray would wait for ever.
    """
    asked = {"CPU": cpus, "GPU": gpus, "memory": memory}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(min(has.get(name, 0) / least for name, least in asked.items() if least)) for has in nodes)
    if not room:
        wanted = in_words(*asked.values())
        there = "; ".join(sorted(in_words(*(has.get(name, 0) for name in asked)) for has in nodes))
        raise PipelineError(f"{PARAMS}: cluster: no node has {wanted}; the nodes have: {there}")
    return room


def in_words(cpus: float, gpus: float, memory: float) -> str:
    """Resources as `4 CPUs, 1 GPUs, 16 GiB`."""
    return f"{cpus:g} CPUs, {gpus:g} GPUs, {memory / GIB:.3g} GiB"
