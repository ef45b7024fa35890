"""Back up MLflow's store, an SQLite file, and the artifacts of its experiments, in one archive.

    python -m pipeline.backup [FILE]

Reads the store that MLFLOW_TRACKING_URI names, or mlflow.db, and the folders that its experiments name.
Writes FILE, by default backups/mlflow-DATE.zip: `mlflow.db`, `artifacts/` with a folder for each place of
artifacts, and `manifest.json`. Runs may continue: SQLite's online backup copies the database first, as it
is at one moment, so every run that this copy calls finished is complete in the archive.
"""

import argparse
import json
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow.utils.file_utils import local_file_uri_to_path

from pipeline.records import store
from pipeline.shared.errors import PipelineError, masked, one_line_errors

DATABASE, MANIFEST = "mlflow.db", "manifest.json"
SERVED = "mlartifacts"  # where `mlflow server` keeps artifacts by default, beside its store


@one_line_errors
def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description="Back up MLflow's store and artifacts.")
    parser.add_argument("file", nargs="?", type=Path, help="default: backups/mlflow-DATE.zip")
    default = Path(f"backups/mlflow-{datetime.now().astimezone():%Y%m%d-%H%M%S}.zip")
    file = parser.parse_args().file or default
    database = sqlite_file()
    if not database.is_file():
        raise PipelineError(f"{database}: no such file: there is nothing to back up")
    if file.exists():
        raise PipelineError(f"{file}: already exists")
    try:
        manifest = write(database, file)
    except OSError as error:
        reason = error.strerror or error
        raise PipelineError(f"{error.filename or file}: cannot be backed up to {file}: {reason}") from error
    except sqlite3.Error as error:
        raise PipelineError(f"{database}: cannot be backed up: {error}") from error
    for location in manifest["skipped"]:
        print(f"backup: skipped, since it is not on this machine: {masked(location)}")
    print(f"backup: {file}: {manifest['runs']} runs, {manifest['files']} files")


def sqlite_file() -> Path:
    """The absolute path of the store's file. Raises PipelineError if the store is not an SQLite file."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:"):
        raise PipelineError(f"{uri}: not an SQLite file; for other stores see docs/upkeep.md")
    return Path(store.database_url(uri).database or "").absolute()


def write(database: Path, file: Path) -> dict[str, Any]:
    """Write the archive, all or nothing. Returns its manifest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=file.parent, prefix=".backup-") as temporary:
        folder = Path(temporary)
        copy, partial = folder / DATABASE, folder / file.name
        copy_database(database, copy)
        manifest = contents(copy, database.parent)
        files = {DATABASE: copy}
        for prefix, root in manifest["roots"].items():
            files |= {f"{prefix}/{path.relative_to(root)}": path for path in files_of(root, but=folder)}
        manifest["files"] = len(files)
        with zipfile.ZipFile(
            partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False
        ) as archive:
            for name, path in files.items():
                archive.write(path, name)
            archive.writestr(MANIFEST, json.dumps(manifest, indent=2))
        partial.replace(file)
    return manifest


def copy_database(database: Path, copy: Path) -> None:
    """Copy an SQLite file at one moment, even if others write to it."""
    with (
        closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=60)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def contents(database: Path, folder: Path) -> dict[str, Any]:
    """The manifest of a store in `folder`, with its local folders of artifacts, none within another."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments ORDER BY 1").fetchall()
        [runs] = connection.execute("SELECT count(*) FROM runs").fetchone()
    places = {location: place_of(location, folder) for [location] in rows}
    folders = {path for path in places.values() if path is not None and path.is_dir()}
    outermost = sorted(path for path in folders if folders.isdisjoint(path.parents))
    return {
        "folder": str(folder),
        "roots": {f"artifacts/{number}": str(root) for number, root in enumerate(outermost)},
        "skipped": [location for location, path in places.items() if path is None],
        "runs": runs,
    }


def place_of(location: str, folder: Path) -> Path | None:
    """The path of an artifact location; None if it is not on this machine."""
    scheme = urlsplit(location).scheme
    if scheme == "mlflow-artifacts":
        served = folder / SERVED  # unless `mlflow server --artifacts-destination` puts them elsewhere
        return served if served.is_dir() else None
    return Path(local_file_uri_to_path(location)) if scheme in {"", "file"} else None


def files_of(root: str, but: Path) -> Iterator[Path]:
    """The files below a folder, in order, except those below `but`."""

    def failed(error: OSError) -> None:
        raise error

    for folder, names, files in os.walk(root, onerror=failed):
        names[:] = sorted(name for name in names if Path(folder) / name != but)
        yield from (Path(folder) / name for name in sorted(files))


if __name__ == "__main__":
    main()
