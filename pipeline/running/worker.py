"""Worker processes, one for each job, forked from a server that has imported TensorFlow and MLflow.

The imports take longer than a small training. A fork has them and nothing else: its model is that of a
fresh process, its memory is freed when it ends, and if it dies, it takes only its own job with it. There are
no semaphores, so this also works on a machine without /dev/shm. With a GPU each worker is a fresh process,
since CUDA does not survive a fork.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.support.errors import one_line_errors

NVIDIA = Path("/proc/driver/nvidia/gpus")  # has a folder for each GPU


def gpus() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; none without NVIDIA's driver."""
    found = [str(number) for number, _ in enumerate(NVIDIA.glob("*"))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not found or chosen is None:
        return found
    names = (name.strip() for name in chosen.split(","))
    return list(takewhile(lambda name: name not in {"", "-1"}, names))  # as CUDA, to the first invalid one


FORKS = not gpus()  # whether there is a server
CONTEXT = multiprocessing.get_context("forkserver") if FORKS else multiprocessing.get_context("spawn")
IMPORTED = ["pipeline.stages.train.training", "pipeline.stages.predict"]  # by the server, beside what is here
LOCK = threading.Lock()  # `Process.start` also polls children that ended, which another thread may be joining
TERMINATED = 128 + signal.SIGTERM  # the exit status of a worker that got this signal, as a shell gives it
SECONDS_TO_STOP = 30  # a training answers after some steps of an epoch, then closes its run in MLflow


@contextmanager
def server(*modules: str) -> Iterator[None]:
    """Start the server, if there is one, which imports what workers need, and `modules`, meanwhile.

    In the end stop all workers and the server.
    """
    if FORKS:
        imported = [name for name in sys.modules if name.startswith("pipeline.")]
        CONTEXT.set_forkserver_preload([*imported, *IMPORTED, *modules])
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server and its forks inherit this
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        stop()
        end_server()


def run(
    job: Callable[[], None],
    show: Callable[[str], None],
    gpu: str | None = None,
    stopped: threading.Event | None = None,
) -> int | None:
    """Do a picklable job in a process of its own, and show each line that it prints; its exit status.

    The status is 0 if the job was done, 1 if it failed, and anything else if the process died or was not
    started, because `stopped` was set. If a `gpu` is given, the process sees no other. An exception that
    `show` raises kills the process.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(job, theirs, gpu), daemon=True)
    with LOCK:
        if stopped is not None and stopped.is_set():
            return TERMINATED
        process.start()  # waits while the server imports
    theirs.close()
    with open(ours.fileno(), closefd=False, errors="replace") as lines:
        try:
            for line in lines:
                show(line.rstrip("\n"))
        except BaseException:
            process.kill()
            lines.read()  # to its end, so that the lock is not held until then
            raise
        finally:
            with LOCK:
                process.join()
    return process.exitcode


def stop() -> None:
    """Interrupt all workers, and kill those that do not end."""
    with LOCK:  # a process that is just starting is not yet among the children
        workers = [child for child in multiprocessing.active_children() if isinstance(child, CONTEXT.Process)]
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(SECONDS_TO_STOP)
            worker.kill()


def end_server() -> None:
    """End the server, so that the next one imports anew."""
    if FORKS:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # and wait for it, so that its CPU time counts


def end_with_make() -> None:
    """Kill this process once the `make` that started it was killed. MAKE_PID, if set, is its process."""
    if make := os.environ.pop("MAKE_PID", None):
        threading.Thread(target=_end_without, args=[int(make)], daemon=True).start()


def _work(job: Callable[[], None], connection: Connection, gpu: str | None) -> None:
    """Do a job whose output goes through a connection."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    for stream in (sys.stdout, sys.stderr):
        os.dup2(connection.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    signal.signal(signal.SIGTERM, _end)
    gc.freeze()  # Keras collects garbage for each model, and what is imported is none
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_line_errors(job)()


def _end(*_: object) -> None:
    """End this process, once: a second signal would disturb what runs at its exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _end_with_parent() -> None:
    """Interrupt this process once its parent is gone, and kill it if it does not end."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_TO_STOP)
        os.kill(os.getpid(), signal.SIGKILL)


def _end_without(parent: int) -> None:
    """Kill this process once it has another parent."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
