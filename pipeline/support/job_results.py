"""Results of trainings and predictions that were made ahead of their stages, each under a key: the digest of
what decides it. A stage that finds its key's result copies it, and does not do the work again.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.support.errors import PipelineError, one_line
from pipeline.support.paths import RESULTS


def folder_of(key: str) -> Path:
    """The folder of a result, whole if it exists."""
    return RESULTS / key


def make(key: str, write: Callable[[Path], None]) -> Path:
    """The folder of a result, which `write` fills if it does not exist, all or nothing. An error is noted."""
    folder = folder_of(key)
    if not folder.is_dir():
        unfinished = folder.with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            write(unfinished)
            unfinished.rename(folder)
        except Exception as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            fail(key, one_line(error) or repr(error))
            raise
    return folder


def fail(key: str, reason: str) -> None:
    """Note that the work for a key failed, so that its stage reports the reason and does not try again."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    _failure(key).write_text(reason)


def failure(key: str) -> str | None:
    """Why the work for a key failed, if it did; only once, since this removes the note."""
    if not (note := _failure(key)).is_file():
        return None
    reason = note.read_text()
    note.unlink()
    return reason


def forget_failures() -> None:
    """Remove the notes of failures, so that the work is tried again."""
    for note in RESULTS.glob("*.failed"):
        note.unlink()


def take(key: str, target: Path) -> bool:
    """Copy a result to `target`, all or nothing. Returns whether there is one.

    Raises PipelineError, once, if its work failed.
    """
    if reason := failure(key):
        raise PipelineError(reason)
    if not folder_of(key).is_dir():
        return False
    unfinished = target.with_name(f"{target.name}.partial")
    for folder in (unfinished, target):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folder_of(key), unfinished)
    unfinished.rename(target)
    _taken(key).touch()
    return True


def pack() -> dict[str, bytes]:
    """All results and notes of failures, for `unpack` in another folder: the content of each file."""
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    return {path.relative_to(RESULTS).as_posix(): path.read_bytes() for path in files}


def unpack(files: dict[str, bytes]) -> None:
    """Add results and notes of another folder, each all or nothing."""

    def write(key: str, folder: Path) -> None:
        for name in names[key]:
            path = folder / PurePosixPath(name).relative_to(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])

    names: dict[str, list[str]] = {}
    for name in files:
        names.setdefault(PurePosixPath(name).parts[0], []).append(name)
    for key, inside in names.items():
        if inside == [key]:
            fail(key.removesuffix(".failed"), files[key].decode())
        else:
            make(key, partial(write, key))


def clear() -> list[dict[str, str]]:
    """Remove all results, once every stage is up to date. Returns the tags of trainings that none took up."""
    records = [
        record for record in RESULTS.glob("*/training.json") if not _taken(record.parent.name).exists()
    ]
    tags = [json.loads(record.read_text())["tags"] for record in records]
    shutil.rmtree(RESULTS, ignore_errors=True)
    return tags


def _taken(key: str) -> Path:
    return RESULTS / f"{key}.taken"


def _failure(key: str) -> Path:
    return RESULTS / f"{key}.failed"
