"""Runs `dvc repro` as a process that can be interrupted at any moment."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.running.worker import SECONDS_TO_STOP

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--keep-going", "--quiet"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # which interrupt a run
LOCK = Path(".dvc/tmp/lock")  # which DVC holds unless a stage's command runs


def dvc_repro() -> bool:
    """Bring all stages up to date that do not depend on one that fails; whether none failed.

    It has a session of its own, so that Ctrl-C reaches only this process, which stops it in good order.
    """
    process = subprocess.Popen(DVC, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second one would leave DVC running
        stop(process)
        raise


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt the stage that runs, and kill DVC while it writes nothing and can start no other stage."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(psutil.NoSuchProcess):
            stages = psutil.Process(process.pid).children(recursive=True)
            for stage in stages:
                stage.send_signal(signal.SIGINT)
            psutil.wait_procs(stages, timeout=SECONDS_TO_STOP)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
