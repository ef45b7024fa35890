"""Locks between processes.

A stage may outlive a killed `dvc`; the next `dvc repro` must not run the same stage beside it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from filelock import FileLock, Timeout

from pipeline.support import own_folder
from pipeline.support.digests import digest_of
from pipeline.support.paths import LOCKS

SEED = click.IntRange(0, 2**31 - 1)


class SingleInstance(click.Command):
    """A command that waits until no other process in this folder runs it with the same arguments."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command under a lock, such as train-shallow-0. Options make no difference."""
        names = [str(found.name) for found in self.params if isinstance(found, click.Argument)]
        values = [str(ctx.params[name]) for name in names if ctx.params[name] is not None]
        with locked("-".join([str(ctx.info_name), *values]).replace(os.sep, "_")):
            return super().invoke(ctx)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of this folder, waiting for it if necessary. A process that dies releases its locks."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    if not is_free(name):
        print(f"{name}: waiting for another process that holds its lock", flush=True)
    with FileLock(LOCKS / f"{name}.lock"):
        yield


@contextmanager
def locked_on_this_machine(name: str) -> Iterator[None]:
    """Hold a lock that all processes of this user share, in any folder."""
    with FileLock(own_folder.cache() / f"{digest_of(name)[:16]}.lock"):
        yield


def is_free(name: str) -> bool:
    """Whether no process holds a lock of this folder."""
    try:
        with FileLock(LOCKS / f"{name}.lock", timeout=0):
            return True
    except Timeout:
        return False
