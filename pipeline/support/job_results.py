"""Results of jobs, each under a key: the digest of what decides it.

A stage that finds a result under its key copies it, and does not do the work again.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.support.errors import PipelineError, one_line
from pipeline.support.paths import RESULTS, WORK


def folder_of(key: str) -> Path:
    """The folder of a result, which is complete if it exists."""
    return RESULTS / key


def make(key: str, write: Callable[[Path], None]) -> Path:
    """The folder of a result, which `write` fills if it does not exist.

    If `write` fails, the error is noted, and there is no folder.
    """
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
    """Note that a job failed, so that its stage reports the reason and does not try again."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{key}.failed").write_text(reason)


def failure(key: str) -> str | None:
    """Why a job failed, if it did. Removes the note."""
    note = RESULTS / f"{key}.failed"
    reason = note.read_text() if note.is_file() else None
    note.unlink(missing_ok=True)
    return reason


def forget_failures() -> None:
    """Remove the notes of failures, so that the jobs are tried again."""
    for note in RESULTS.glob("*.failed"):
        note.unlink()


def take(key: str, target: Path) -> bool:
    """Replace `target` with a copy of a result. Returns whether there is one.

    Raises PipelineError, once, if its job failed.
    """
    if reason := failure(key):
        raise PipelineError(reason)
    if not folder_of(key).is_dir():
        return False
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder_of(key), target)
    (RESULTS / f"{key}.copied").write_text(os.environ.get("DVC_EXP_NAME", ""))
    return True


def copied_in(key: str) -> str:
    """DVC's experiment in which a stage copied a result; "" if it was none."""
    note = RESULTS / f"{key}.copied"
    return note.read_text() if note.is_file() else ""


def pack() -> bytes:
    """All results and notes of failures, as a tar file."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in RESULTS.glob("*"):
            archive.add(path, path.name)
    return packed.getvalue()


def unpack(packed: bytes) -> None:
    """Add the results and notes that another folder packed and this one lacks, each all or nothing."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=WORK) as folder, tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
        for path in Path(folder).iterdir():
            if not (RESULTS / path.name).exists():
                path.rename(RESULTS / path.name)


def clear() -> list[dict[str, str]]:
    """Remove all results. Returns the tags of the trainings whose results no stage copied."""
    copied = {path.stem for path in RESULTS.glob("*.copied")}
    records = [path for path in RESULTS.glob("*/training.json") if path.parent.name not in copied]
    tags = [json.loads(path.read_text())["tags"] for path in records]
    shutil.rmtree(RESULTS, ignore_errors=True)
    return tags
