"""Restore a backup of `pipeline.backup`, here or in another folder or on another machine.

    python -m pipeline.restore FILE

Writes the store that MLFLOW_TRACKING_URI names, or mlflow.db, and the artifacts. Artifacts from beside or
below the old store move beside the new one, and the store names their new places; others return to theirs.
Nothing is overwritten, and nothing changes unless the whole archive is good.
"""

import argparse
import json
import shutil
import sqlite3
import zipfile
import zlib
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy
from sqlalchemy import func

from pipeline.backup import DATABASE, MANIFEST, sqlite_file
from pipeline.records import store
from pipeline.shared.errors import PipelineError, in_a_line, one_line_errors

# The columns that hold places of artifacts, as paths or as file: URIs.
LOCATIONS = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
]


@one_line_errors
def main() -> None:
    """Check the backup and restore it."""
    parser = argparse.ArgumentParser(description="Restore MLflow's store and artifacts from a backup.")
    parser.add_argument("file", type=Path, help="a backup of `python -m pipeline.backup`")
    file = parser.parse_args().file
    database = sqlite_file()
    try:
        manifest = restore(file, database)
    except OSError as error:
        reason = error.strerror or error
        raise PipelineError(f"{error.filename or database}: cannot be restored: {reason}") from error
    print(f"restore: {manifest['runs']} runs, {manifest['files']} files from {file}")
    store.check()  # an older store is restored too, and must then be upgraded


def restore(file: Path, database: Path) -> dict[str, Any]:
    """Restore an archive to the store `database`. Returns its manifest.

    Raises PipelineError, and changes nothing, if a file is in the way or the archive is damaged.
    """
    refuse_to_overwrite([database, *(Path(f"{database}{end}") for end in ("-journal", "-wal", "-shm"))])
    database.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=database.parent, prefix=".restore-") as name:
        staged = Path(name)
        manifest = unpack(file, staged)
        old, new = Path(manifest["folder"]), database.parent
        roots = {staged / prefix: Path(root) for prefix, root in manifest["roots"].items()}
        places = {
            source: new / root.relative_to(old) if root.is_relative_to(old) else root
            for source, root in roots.items()
            if source.is_dir()  # an archive does not hold empty folders
        }
        refuse_to_overwrite(list(places.values()))
        check_database(file, staged / DATABASE)
        relocate(staged / DATABASE, old, new)
        put(places | {staged / DATABASE: database})
    return manifest


def refuse_to_overwrite(targets: list[Path]) -> None:
    """Raise PipelineError if any of these exists, unless it is an empty folder."""
    there = [path for path in targets if path.exists() and not (path.is_dir() and not any(path.iterdir()))]
    if there:
        names = ", ".join(str(path) for path in there)
        raise PipelineError(f"{names}: already there: move it aside first")


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive, which checks the CRC of every file. Returns its manifest."""
    if not file.is_file():
        raise PipelineError(f"{file}: no such file")
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
            manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
            if manifest["files"] != len(archive.namelist()) - 1 or DATABASE not in archive.namelist():
                raise ValueError("files are missing")
    except (ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PipelineError(f"{file}: not a complete backup: {in_a_line(error)}") from error
    return manifest


def check_database(file: Path, database: Path) -> None:
    """Raise PipelineError if a backup's store is damaged or of a newer MLflow."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            [state] = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        state = str(error)
    if state != "ok":
        raise PipelineError(f"{file}: its {DATABASE} is damaged: {state}")
    found = store.revision(f"sqlite:///{database}")
    if found is None:
        raise PipelineError(f"{file}: its {DATABASE} is not a store of MLflow")
    if found not in store.known_revisions():
        raise PipelineError(f"{file}: of a newer MLflow: the installed one does not know its schema, {found}")


def relocate(database: Path, old: Path, new: Path) -> None:
    """Change the places of artifacts in a store from below `old` to below `new`."""
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        for name, key in LOCATIONS:
            table = sqlalchemy.table(name, sqlalchemy.column(key))
            column = table.c[key]
            for before, after in ((f"{old}/", f"{new}/"), (f"{old.as_uri()}/", f"{new.as_uri()}/")):
                connection.execute(
                    sqlalchemy.update(table)
                    .where(func.substr(column, 1, len(before)) == before)
                    .values({key: after + func.substr(column, len(before) + 1)})
                )
    engine.dispose()


def put(places: dict[Path, Path]) -> None:
    """Move everything to its place, the store last; nothing if any of it fails."""
    done: list[Path] = []
    try:
        for source, target in places.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()  # it is empty
            done.append(target)
            shutil.move(source, target)
    except BaseException:  # Ctrl-C, too
        for path in done:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    main()
