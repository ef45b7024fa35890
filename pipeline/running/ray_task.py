"""Does a job on a node of a cluster, in a folder of its own."""

import io
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock
from ray.util.queue import Queue

from pipeline.running.job import Job
from pipeline.running.view import Epoch
from pipeline.support import job_results, mlflow_store, own_folder
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import PipelineError, one_line
from pipeline.support.paths import PREPARED

Files = dict[str, bytes]  # by their paths
Data = list["ray.ObjectRef[Any]"]  # one dictionary of files, uint8 arrays, in Ray's object store


def work(
    job: Job,
    digest: str,
    data: Data,
    files: Files,
    settings: dict[str, str],
    inbox: Queue,
) -> tuple[bool, bytes, bool]:
    """Do a job; whether it succeeded, its results, and whether its run is in MLflow.

    The prepared `data`, with this `digest`, are fetched once for each node. `files` are a model and a
    checkpoint that the job begins with, `settings` the environment variables of MLflow. Each line that the
    job prints goes into `inbox` with the job's name; after an epoch also the checkpoint.
    """
    os.environ.update(settings)

    def send(line: str) -> None:
        checkpoint = job.files.checkpoint if Epoch.of(line) else None
        content = checkpoint.read_bytes() if checkpoint and checkpoint.is_file() else None
        inbox.actor.put.remote((job.files.name, line, content))  # `put` waits, which frees the CPU

    lines = Lines(send)
    with workspace(job.files.name, digest, data, files), redirect_stdout(lines), redirect_stderr(lines):
        tracks = job.tracks and can_track()
        succeeded = succeeds(replace(job, tracks=tracks))
        return succeeded, job_results.pack(), tracks


@contextmanager
def workspace(name: str, digest: str, data: Data, files: Files) -> Iterator[None]:
    """Work in a new folder, with the prepared data and these files, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"pipeline-{name}-") as made:
        folder = Path(made)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / PREPARED.parent).mkdir(parents=True)
        (folder / PREPARED).symlink_to(prepared(digest, data))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(folder.parent)


def share_data() -> tuple[str, Data]:
    """Put the prepared data into Ray's object store. Returns their digest, and where they are."""
    files = data_files(PREPARED)
    content = {path.relative_to(PREPARED).as_posix(): np.fromfile(path, np.uint8) for path in files}
    return data_digest(PREPARED), [ray.put(content)]


def prepared(digest: str, data: Data) -> Path:
    """The folder of the prepared data, fetched first if this machine has no complete copy."""
    folder = own_folder.temporary("pipeline-data") / digest
    with FileLock(folder.with_suffix(".lock")):
        if data_digest(folder) != digest:
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in ray.get(data[0]).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                content.tofile(folder / name)
    return folder


def data_files(folder: Path) -> list[Path]:
    """The files of the prepared data that trainings and predictions read."""
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def data_digest(folder: Path) -> str:
    """The digest of the prepared data in a folder."""
    return digest_of({path.relative_to(folder).as_posix(): file_digest(path) for path in data_files(folder)})


def has_server() -> bool:
    """Whether MLflow's store is a server, which other machines may reach."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")


def can_track() -> bool:
    """Whether this node reaches MLflow's server."""
    if not has_server():
        return False
    try:
        mlflow_store.check()
    except PipelineError as error:
        print(f"not logged from here: {error}")
        return False
    return True


def succeeds(command: Callable[[], None]) -> bool:
    """Whether a command succeeds; if not, it prints why."""
    try:
        command()
    except Exception as error:
        line = one_line(error)
        print(f"error: {line}" if line else traceback.format_exc())
        return False
    return True


class Lines(io.TextIOBase):
    """A stream that passes each line on."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self.show, self.rest = show, ""

    def write(self, text: str) -> int:
        """Pass on the lines that are complete."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.show(line)
        return len(text)
