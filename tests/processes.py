"""Processes that tests start: found by their folder, waited for and killed."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest


def processes(folder: Path, module: str = "") -> list[psutil.Process]:
    """The processes that work in a folder, except this one; with `module`, of `python -m pipeline MODULE`."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and process.pid != os.getpid()
        if not module or {"-m", "pipeline", module} <= {*(process.info["cmdline"] or [])}
    ]


def output_of(process: "subprocess.Popen[str]") -> str:
    """What a started process has printed when it ends. If pytest's timeout is over, its group is killed."""
    try:
        return process.communicate(timeout=86_400)[0]  # with a timeout, the call below returns all output
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate(timeout=60)[0])
        raise


def wait_for(condition: Any, process: "subprocess.Popen[Any] | None" = None) -> Any:
    """The value of `condition` once it is true; a `process` that ends before fails the test."""
    while True:
        ended = process and process.poll() is not None
        if found := condition():
            return found
        if process and ended:
            pytest.fail(f"ended with {process.returncode}:\n{process.communicate()[0]}")
        time.sleep(0.05)


def kill(folder: Path, dvc: "subprocess.Popen[str]", what: str, module: str = "train") -> None:
    """Send SIGKILL to the processes of a stage in the folder, to `dvc` only, or to the whole group."""
    if what == "group":
        os.killpg(dvc.pid, signal.SIGKILL)
    elif what == "dvc":
        dvc.kill()
    else:
        for process in processes(folder, module):
            with suppress(psutil.NoSuchProcess):
                if Path(process.exe()).name.startswith("python"):
                    process.kill()
