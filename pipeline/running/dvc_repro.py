"""Runs `dvc repro` as a process that can be interrupted at any moment, and that does not outlive this one."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path

import psutil

from pipeline.running import supervisor
from pipeline.running.worker import SECONDS_TO_STOP

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--keep-going", "--quiet"]
IN_USE = Path(".dvc/tmp/rwlock")  # DVC's list of the files that its processes use
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # which interrupt a run


def run(*targets: str) -> bool:
    """Bring stages up to date that do not depend on one that fails, by default all; whether none failed.

    DVC has a session of its own, so that Ctrl-C reaches only this process, which stops it in good order.
    """
    command = [sys.executable, "-I", supervisor.__file__, *DVC, *targets]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # a second one would leave DVC running
            stop(process)
            raise
    if status < 0:  # the supervisor was killed, and perhaps not DVC
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return status == 0


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt the stage that runs, and kill DVC while it writes nothing and can start no other stage."""
    with Path(supervisor.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for dvc in psutil.Process(process.pid).children():
            stages = dvc.children(recursive=True)
            for stage in stages:
                with suppress(psutil.NoSuchProcess):
                    stage.send_signal(signal.SIGINT)
            psutil.wait_procs(stages, timeout=SECONDS_TO_STOP)
            dvc.kill()  # with which the supervisor kills what did not listen
        process.wait()


def forget_killed() -> None:
    """Remove DVC's list of the files in use if a kill cut it off, or left only processes that ended.

    DVC does not read the first, and takes a zombie for a process that runs.
    """
    from dvc.lock import make_lock

    if not IN_USE.is_file():
        return
    with make_lock(f"{IN_USE}.lock"), suppress(FileNotFoundError):
        try:
            used = json.loads(IN_USE.read_text())
        except ValueError:
            used = {}
        users = [*used.get("write", {}).values(), *chain(*used.get("read", {}).values())]
        if not any(is_running(user["pid"]) for user in users):
            IN_USE.unlink()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
