"""Checks that a server can listen on its port, before it loads what it serves."""

import socket

from pipeline.support.errors import PipelineError


def check_free(host: str, port: int) -> None:
    """Raise PipelineError if a server could not listen on a port of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do after a restart
            probe.bind((host, port))
    except OSError as error:
        ways = "choose another port: PORT=N with make, else --port N"
        raise PipelineError(f"{host}:{port}: {error.strerror}: {ways}") from error
