"""A port that is in use is named before anything is loaded."""

import socket

import pytest

from tests.called import call
from tests.conftest import Clone


@pytest.mark.parametrize("command", ["ui", "serve", "demo"])
def test_a_port_in_use_is_refused(clone: Clone, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refusal = call(clone.folder, command, f"--port={port}", MLFLOW_TRACKING_URI=clone.store).refusal
    ways = "choose another port: PORT=N with make, else --port N"
    assert refusal == f"127.0.0.1:{port}: Address already in use: {ways}"
