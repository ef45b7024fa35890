"""One process a stage: a stage that outlived its `dvc` must not work beside the next one that DVC starts."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.paths import LOCKS


def alone(main: Callable[[], None]) -> Callable[[], None]:
    """Let a command run only when no other process of this folder runs it with the same arguments."""

    @wraps(main)
    def wrapped() -> None:
        spec = sys.modules[main.__module__].__spec__  # of a module that `python -m` runs, too
        stage = spec.name.split(".")[-1] if spec else main.__module__
        words = [word for word in sys.argv[1:] if not word.startswith("-")]
        with locked("-".join([stage, *words]).replace(os.sep, "_")):
            main()

    return wrapped


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock, and wait for it, saying so, while another process does. It ends with its process."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCKS / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: waits for another process that is at it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_on_this_machine(name: str) -> Iterator[None]:
    """Hold a lock that this user's processes share, whatever folder they work in."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"pipeline-{os.getuid()}-{digest}.lock"):
        yield


def is_free(name: str) -> bool:
    """Whether no process holds a lock now."""
    try:
        with FileLock(LOCKS / f"{name}.lock", timeout=0):
            return True
    except Timeout:
        return False
