"""Locks between processes.

A stage may outlive a killed `dvc`; the next `dvc repro` must not run the same stage beside it.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.shared.errors import one_line_errors
from pipeline.shared.paths import LOCKS


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Make a command print errors as one line, and wait until no other process in this folder runs it.

    Runs with other words before their options, such as another VARIANT, do not wait for each other.
    """

    @wraps(main)
    def wrapped() -> None:
        spec = sys.modules[main.__module__].__spec__  # of a module that `python -m` runs, too
        stage = spec.name.split(".")[-1] if spec else main.__module__
        words = takewhile(lambda word: not word.startswith("-"), sys.argv[1:])  # without options
        with locked("-".join([stage, *words]).replace(os.sep, "_")):
            main()

    return one_line_errors(wrapped)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of this folder, waiting for it if need be. A process that dies releases its locks."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCKS / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: waiting for another process that holds its lock", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_on_this_machine(name: str) -> Iterator[None]:
    """Hold a lock that all processes of this user share, in any folder."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"pipeline-{os.getuid()}-{digest}.lock"):
        yield


def is_free(name: str) -> bool:
    """Whether no process holds a lock of this folder."""
    try:
        with FileLock(LOCKS / f"{name}.lock", timeout=0):
            return True
    except Timeout:
        return False
