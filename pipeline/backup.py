"""Back up MLflow's store, an SQLite file, and the artifacts of its experiments, in one archive.

    python -m pipeline.backup [FILE]

Reads the store that MLFLOW_TRACKING_URI names, else mlflow.db, and the folders that its experiments name.
Writes FILE, by default backups/mlflow-DATE.tar.gz: `mlflow.db`; `artifacts/`, a folder for each place
that artifacts are in; and `manifest.json`, which comes last and has the SHA-256 of every file.

Runs may go on meanwhile. The database is copied as it is at one moment, with SQLite's online backup, and
before the artifacts, so that whatever it calls finished is there.
"""

import argparse
import hashlib
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import sqlalchemy

from pipeline.errors import PipelineError, one_line_errors
from pipeline.records import store

DATABASE, MANIFEST = "mlflow.db", "manifest.json"
SERVED = "mlartifacts"  # where `mlflow server` keeps artifacts unless told, beside its store


@one_line_errors
def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description="Back up MLflow's store and artifacts.")
    parser.add_argument("file", nargs="?", type=Path, help="default: backups/mlflow-DATE.tar.gz")
    default = Path(f"backups/mlflow-{datetime.now().astimezone():%Y%m%d-%H%M%S}.tar.gz")
    file = parser.parse_args().file or default
    database = sqlite_file()
    if not database.is_file():
        raise PipelineError(f"{database}: no such file: there is nothing to back up")
    if file.exists():
        raise PipelineError(f"{file}: is there already")
    try:
        manifest = write(database, file)
    except OSError as error:
        raise PipelineError(f"{file}: cannot be written: {error}") from error
    for location in manifest["left_out"]:
        print(f"backup: left out, as it is not on this machine: {location}")
    print(f"backup: {file}: {manifest['runs']} runs, {len(manifest['files'])} files")


def sqlite_file() -> Path:
    """The store's file, an absolute path; PipelineError where the store is no SQLite file."""
    uri = mlflow.get_tracking_uri()
    url = sqlalchemy.make_url(uri) if store.is_database(uri) else None
    if url is None or url.get_backend_name() != "sqlite":
        shown = url.render_as_string() if url else uri
        raise PipelineError(f"{shown}: an SQLite file is allowed; docs/upkeep.md has the others")
    return Path(url.database or "").absolute()


def write(database: Path, file: Path) -> dict[str, Any]:
    """Write the archive, whole or not at all; its manifest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
        copy, partial = Path(folder) / DATABASE, Path(folder) / file.name
        copy_database(database, copy)
        folders, left_out, runs = contents(copy, database.parent)
        roots = {f"artifacts/{number}": root for number, root in enumerate(folders)}
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
            digests = {DATABASE: add(archive, copy, DATABASE)}
            for prefix, root in roots.items():
                for path in files_of(root, Path(folder)):
                    name = f"{prefix}/{path.relative_to(root)}"
                    digests[name] = add(archive, path, name)
            manifest = {
                "mlflow": version("mlflow"),
                "folder": str(database.parent),
                "roots": {prefix: str(root) for prefix, root in roots.items()},
                "left_out": left_out,
                "runs": runs,
                "files": digests,
            }
            content = json.dumps(manifest, indent=2).encode()
            described = tarfile.TarInfo(MANIFEST)
            described.size = len(content)
            archive.addfile(described, io.BytesIO(content))
        partial.replace(file)
    return manifest


def copy_database(database: Path, copy: Path) -> None:
    """Copy an SQLite file as it is at one moment, whoever writes to it."""
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise PipelineError(f"{database}: cannot be copied: {error}") from error


def contents(database: Path, folder: Path) -> tuple[list[Path], list[str], int]:
    """The local folders of a store's artifacts, none within another; the other places; how many runs.

    `folder` is the one that the store itself is in.
    """
    with closing(sqlite3.connect(database)) as connection:
        locations = {row[0] for row in connection.execute("SELECT artifact_location FROM experiments")}
        [runs] = connection.execute("SELECT count(*) FROM runs").fetchone()
    local = {location: path for location in locations if (path := local_path(location)) is not None}
    if any(urlsplit(location).scheme == "mlflow-artifacts" for location in locations):
        local |= {name: folder / SERVED for name in locations if name.startswith("mlflow-artifacts:")}
    folders = {path for path in local.values() if path.is_dir()}
    outermost = sorted(path for path in folders if not folders & {*path.parents})
    return outermost, sorted(locations - local.keys()), runs


def local_path(location: str) -> Path | None:
    """The path of an artifact location; None where it is not on this machine."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme else Path(location)


def files_of(root: Path, but: Path) -> Iterator[Path]:
    """The files below a folder, in order, but for those below `but`."""
    for folder, names, files in os.walk(root, onerror=_refuse):
        names[:] = sorted(name for name in names if Path(folder) / name != but)
        yield from (Path(folder) / name for name in sorted(files))


def _refuse(error: OSError) -> None:
    raise PipelineError(f"{error.filename}: cannot be backed up: {error.strerror}") from error


def add(archive: tarfile.TarFile, path: Path, name: str) -> str:
    """Put a file into the archive under a name; its SHA-256."""
    try:
        with path.open("rb") as file:
            read = _Hashed(file)
            described = archive.gettarinfo(arcname=name, fileobj=file)
            described.type = tarfile.REGTYPE  # also where another name of the same file is in already
            described.size = path.stat().st_size
            archive.addfile(described, read)
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be backed up: {error}: a run may just have changed it"
        ) from error
    return read.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """A file that hashes what is read of it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.sha256.update(content)
        return content


if __name__ == "__main__":
    main()
