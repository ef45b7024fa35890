"""Joins a Ray cluster, or starts one on this machine."""

import logging
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from tenacity import Retrying, stop_after_attempt

from pipeline import params
from pipeline.support import own_folder
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.paths import PARAMS

GIB = 1024**3
PACKAGE = Path(params.__file__).parent
SECONDS_TO_ANSWER = 10
STARTS = 3  # attempts to start Ray here; each has Ray's own 15 seconds (2.60), too few on a busy machine


def connect() -> None:
    """Join the cluster at RAY_ADDRESS, or start one that only this machine and user reach.

    Raises PipelineError if none answers.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    rule = "must be the HOST:PORT of a cluster that this machine has joined with `ray start`"
    host, _, port = address.rpartition(":")
    if address != "local" and not (port.isdecimal() and re.fullmatch(r"[\w.\-\[\]:]+", host)):
        raise PipelineError(f"RAY_ADDRESS: {rule}; received {address!r}")
    options: dict[str, Any] = {"runtime_env": {"py_modules": [str(PACKAGE)]}} | ({} if host else alone())
    try:
        if host:  # since Ray would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        for attempt in Retrying(stop=stop_after_attempt(1 if host else STARTS), reraise=True):
            with attempt:
                ray.shutdown()
                hide_token()
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
                hide_token()
    except Exception as error:  # Ray raises almost anything
        if not host:
            raise PipelineError(f"ray: does not start on this machine: {in_a_line(error)}") from error
        reason = f"no answer from {address}, or this machine has not joined it with `ray start`"
        raise PipelineError(f"RAY_ADDRESS: {reason}: {in_a_line(error)}") from error


def alone() -> dict[str, Any]:
    """The options of a Ray that listens on 127.0.0.1 alone, with a folder that is this user's."""
    ray_constants.ENABLE_RAY_CLUSTER = False  # or Ray (2.60) takes another address of this machine
    if "RAY_TMPDIR" in os.environ:
        return {}
    return {"_temp_dir": str(own_folder.temporary("pipeline-ray") / "t")}  # which Ray opens to everyone


def hide_token() -> None:
    """Keep other users from reading the token that Ray (2.60) makes for its calls, with the mode 0644."""
    with suppress(OSError, RuntimeError):  # a home that is unknown or read-only, where Ray makes none
        token = Path("~/.ray/auth_token").expanduser()
        token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        token.parent.chmod(0o700)
        token.chmod(0o600)


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
