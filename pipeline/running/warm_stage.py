"""Asks the server of `make repro` to run a stage, which DVC has started as `python -m pipeline STAGE`.

Imports only what takes no time; the server is `stage_server`.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

ADDRESS = "PIPELINE_STAGES"  # the variable that names the server's socket, in a run of `make repro`
ACCEPTED = b"y"  # the server's first answer
INTERRUPT = b"i"  # what the process of a stage that is interrupted sends


def ask(arguments: Sequence[str]) -> int | None:
    """The exit status of a stage that the server has run; None if this process has to run it."""
    if (address := os.environ.get(ADDRESS)) is None:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            of_dvc = {name: value for name, value in os.environ.items() if name.startswith("DVC_")}
            request = json.dumps([arguments, str(Path.cwd()), of_dvc]).encode()
            socket.send_fds(server, [request], [sys.stdout.fileno(), sys.stderr.fileno()])
            if server.recv(1) != ACCEPTED:
                return None
        except OSError:
            return None
        while True:
            try:
                return int(server.recv(8) or 1)
            except KeyboardInterrupt:
                server.send(INTERRUPT)
