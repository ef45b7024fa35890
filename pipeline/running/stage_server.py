"""Runs the stages of `dvc repro` in forks of the workers' server, which has imported what they need.

DVC starts `python -m pipeline STAGE` as ever. That process asks for a fork (`warm_stage.ask`), which runs the
stage with the output and in the folder of the process, and ends with the fork's status. A fork is killed once
the process that asked for it is gone, so it ends with DVC and `make repro`. If code has changed since the
server imported it, a stage runs in its own process.
"""

import atexit
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory

from pipeline import stages
from pipeline.core.result_keys import ROOT
from pipeline.running import worker
from pipeline.running.warm_stage import ACCEPTED, ADDRESS, INTERRUPT
from pipeline.support.digests import digest_of, file_digest

LARGEST = 1 << 16  # bytes of a request
WITH_TENSORFLOW = {"recipes", "diagnose"}  # and each training and prediction


@contextmanager
def serving(outdated: Collection[str]) -> Iterator[None]:
    """Start the workers' server for stages that are out of date, and serve those that DVC starts meanwhile.

    Starts none if no stage needs TensorFlow, or on a machine with GPUs, so that stages run on their own.
    """
    if not (worker.FORKS and any("@" in stage or stage in WITH_TENSORFLOW for stage in outdated)):
        yield
        return
    code = code_digest(ROOT)
    names = (f"{stage.name}.stage" if stage.ispkg else stage.name for stage in iter_modules(stages.__path__))
    with (
        worker.server(*(f"{stages.__name__}.{name}" for name in names)),
        TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        os.environ[ADDRESS] = str(Path(folder) / "socket")
        listening.bind(os.environ[ADDRESS])
        listening.listen()
        threading.Thread(target=_serve, args=[listening, code], daemon=True).start()
        try:
            yield
        finally:
            del os.environ[ADDRESS]
            listening.shutdown(socket.SHUT_RDWR)


def code_digest(root: Path) -> str:
    """A digest of all modules of the pipeline in this folder."""
    modules = (root / "pipeline").rglob("*.py")
    return digest_of({path.relative_to(root).as_posix(): file_digest(path) for path in modules})


def _serve(listening: socket.socket, code: str) -> None:
    """Run the stages that are asked for, one at a time, as DVC does."""
    with suppress(OSError):  # of the socket that was shut down
        while True:
            with listening.accept()[0] as client, suppress(OSError):  # of a client that is gone
                if code_digest(Path()) == code:  # in a job's folder, that of its own copy
                    client.sendall(ACCEPTED)
                    client.sendall(str(_run(client)).encode())


def _run(client: socket.socket) -> int:
    """The exit status of a stage, run in a fork; nothing that it started is left."""
    process = worker.CONTEXT.Process(target=_stage, args=[client])
    with worker.LOCK:
        process.start()
    process.join()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    status: int = process.exitcode  # type: ignore[assignment]
    return 128 - status if status < 0 else status


def _stage(client: socket.socket) -> None:
    """Run a stage as `python -m pipeline` does, in a fork, for the process that asked for it."""
    os.setsid()
    gc.freeze()  # Keras collects garbage for each model, and what is imported is none
    request, outputs, *_ = socket.recv_fds(client, LARGEST, 2)
    arguments, folder, environment = json.loads(request)
    for name, output in zip(("stdout", "stderr"), outputs, strict=True):
        inherited = getattr(sys, name)
        os.dup2(output, inherited.fileno())
        setattr(sys, name, os.fdopen(inherited.fileno(), "w", 1, inherited.encoding, closefd=False))
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with, args=[client], daemon=True).start()
    sys.argv[1:] = arguments
    try:
        import_module("pipeline.__main__").main(arguments)
    finally:
        atexit._run_exitfuncs()


def _end_with(client: socket.socket) -> None:
    """Interrupt this process whenever its client is interrupted, and kill it once the client is gone."""
    with suppress(OSError):
        while client.recv(1) == INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
    os.killpg(0, signal.SIGKILL)
