"""Warm worker processes: each imports TensorFlow once, and does one job after another.

A job is a picklable callable. It is called with `report`, which sends what it is given to the driver, as it
does the lines that the job prints. A worker that dies takes nothing with it but its own job. Workers speak
through pipes, which need no semaphores, so they also work on a machine without /dev/shm.
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.shared.errors import one_line

SPAWN = multiprocessing.get_context("spawn")
JOBS = 20  # of one worker, so that its memory does not grow
SECONDS_TO_STOP = 30  # a training answers after some steps of an epoch, then closes its run in MLflow

Report = Callable[[Any], None]


class Worker:
    """One process. Jobs of another `kind` than its first need another process."""

    def __init__(self) -> None:
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.jobs = 0
        self.kind: Any = None
        self.job: Any = None

    def start(self, job: Any) -> None:
        """Begin a job."""
        self.job, self.kind, self.jobs = job, job.kind, self.jobs + 1
        self.connection.send(job)

    def stop(self) -> None:
        """Interrupt the process, and kill it if it does not end."""
        self.process.terminate()
        self.process.join(SECONDS_TO_STOP)
        self.process.kill()
        self.process.join()

    def receive(self) -> tuple[str, Any]:
        """Wait for the next event: see `Pool.events`."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return "died", f"its process ended with {self.process.exitcode}"


class Pool:
    """At most `size` workers, which start when they are needed and end with the block."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.idle: list[Worker] = []
        self.busy: list[Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        workers = [*self.idle, *self.busy]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.stop()

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return bool(self.busy)

    @property
    def room(self) -> int:
        """How many jobs can start."""
        return self.size - len(self.busy)

    def start(self, job: Any) -> None:
        """Start a job in an idle worker of its kind, or in a new one."""
        fits = [worker for worker in self.idle if worker.kind == job.kind and worker.jobs < JOBS]
        if not fits and len(self.idle) + len(self.busy) == self.size:
            self.idle.pop(0).stop()
        worker = fits[0] if fits else Worker()
        self.idle = [other for other in self.idle if other is not worker]
        self.busy.append(worker)
        worker.start(job)

    def events(self) -> Iterator[tuple[Any, str, Any]]:
        """Wait for news of the running jobs: each job with an event and its value.

        Events are a `line` that it printed and a `report`; `done` with its result, `failed` and `died` with
        the reason are its end.
        """
        busy = {worker.connection: worker for worker in self.busy}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            event, value = worker.receive()
            if event in {"done", "failed", "died"}:
                self.busy.remove(worker)
                self.idle += [worker] if event != "died" else []
            yield worker.job, event, value


def _serve(connection: Connection) -> None:
    """Do the jobs that come through a connection, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends its workers
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lines = _Lines(connection)
    with redirect_stdout(lines), redirect_stderr(lines):
        while True:
            try:
                job = connection.recv()
                end = "done", job(lambda value: connection.send(("report", value)))
            except EOFError:
                return
            except Exception as error:
                if one_line(error) is None:  # a bug
                    traceback.print_exc()
                end = "failed", one_line(error) or repr(error)
            connection.send(end)


def _end(*_: object) -> None:
    """End this process, once: a second signal would disturb what runs at its exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit()


def _end_with_parent() -> None:
    """Interrupt this process once its parent is gone."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Lines(io.TextIOBase):
    """A text file whose lines go through a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.rest, self.lock = connection, "", threading.Lock()

    def write(self, text: str) -> int:
        with self.lock:
            *lines, self.rest = (self.rest + text).split("\n")
            for line in lines:
                self.connection.send(("line", line))
        return len(text)
