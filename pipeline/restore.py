"""Restore what `pipeline.backup` wrote, here or in another folder or on another machine.

    python -m pipeline.restore FILE

Writes the store that MLFLOW_TRACKING_URI names, else mlflow.db, and the artifacts: those that were beside
the old store or below it come beside the new one, and the store names their new place; others come to
where they were. What is there is never overwritten, and nothing changes unless the whole archive is good.
"""

import argparse
import json
import shutil
import sqlite3
import tarfile
import zlib
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy
from sqlalchemy import func

from pipeline.backup import DATABASE, MANIFEST, sqlite_file
from pipeline.data.arrays import file_digest
from pipeline.errors import PipelineError, in_a_line, one_line_errors
from pipeline.records import store

# Where a store names the places of artifacts, as paths or as file: URIs.
LOCATIONS = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
]


@one_line_errors
def main() -> None:
    """Check, and put everything in its place."""
    parser = argparse.ArgumentParser(description="Restore MLflow's store and artifacts from a backup.")
    parser.add_argument("file", type=Path, help="as `python -m pipeline.backup` wrote it")
    file = parser.parse_args().file
    database = sqlite_file()
    try:
        manifest = restore(file, database)
    except OSError as error:
        raise PipelineError(f"{database}: cannot be written: {error}") from error
    print(f"restore: {manifest['runs']} runs, {len(manifest['files'])} files from {file}")
    store.check()  # an older store is restored, too, and then has to be upgraded


def restore(file: Path, database: Path) -> dict[str, Any]:
    """Restore an archive to the store `database`; its manifest. PipelineError, and nothing changed, where
    anything is in the way or the archive is not whole."""
    refuse_to_overwrite([database, *(Path(f"{database}{end}") for end in ("-journal", "-wal", "-shm"))])
    database.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=database.parent, prefix=".restore-") as name:
        staged = Path(name)
        manifest = unpack(file, staged)
        old, new = Path(manifest["folder"]), database.parent
        places = {
            staged / prefix: moved(Path(root), old, new)
            for prefix, root in manifest["roots"].items()
            if (staged / prefix).is_dir()
        }
        refuse_to_overwrite(list(places.values()))
        check_database(file, staged / DATABASE)
        relocate(staged / DATABASE, old, new)
        put(places | {staged / DATABASE: database})
    return manifest


def refuse_to_overwrite(targets: list[Path]) -> None:
    """PipelineError where any of these is there, unless it is an empty folder."""
    there = [path for path in targets if path.exists() and not (path.is_dir() and not any(path.iterdir()))]
    if there:
        names = ", ".join(str(path) for path in there)
        raise PipelineError(f"{names}: in the way of what is restored: move it aside first")


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into a folder and compare every file with the manifest, which it returns."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        manifest = json.loads((folder / MANIFEST).read_text())
        expected = {"folder": str, "roots": dict, "runs": int, "files": dict}
        if any(not isinstance(manifest.get(key), kind) for key, kind in expected.items()):
            raise ValueError(f"{MANIFEST} is not a backup's")
    except FileNotFoundError as error:
        what = f"has no {MANIFEST}: it is cut off or not a backup" if file.is_file() else "no such file"
        raise PipelineError(f"{file}: {what}") from error
    except (OSError, EOFError, ValueError, AttributeError, tarfile.TarError, zlib.error) as error:
        raise PipelineError(f"{file}: not a whole backup: {in_a_line(error)}") from error
    for name, sha256 in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise PipelineError(f"{file}: {name} is missing in it")
        if file_digest(path) != sha256:
            raise PipelineError(f"{file}: {name} is damaged in it")
    return manifest


def moved(root: Path, old: Path, new: Path) -> Path:
    """Where a folder of artifacts comes when the store's folder changes from `old` to `new`."""
    return new / root.relative_to(old) if root.is_relative_to(old) else root


def check_database(file: Path, database: Path) -> None:
    """PipelineError where a backup's store is damaged or a newer MLflow's."""
    with closing(sqlite3.connect(database)) as connection:
        [state] = connection.execute("PRAGMA integrity_check").fetchone()
    if state != "ok":
        raise PipelineError(f"{file}: {DATABASE} is damaged in it: {state}")
    found = store.revision(f"sqlite:///{database}")
    if found is None or store.is_newer(found):
        raise PipelineError(
            f"{file}: of a newer MLflow: its schema, {found}, is unknown to the installed one"
        )


def relocate(database: Path, old: Path, new: Path) -> None:
    """Let a store name the places of its artifacts below `new` where they were below `old`."""
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
    """Move everything to its place, the store last; nothing where any of it fails."""
    done: list[Path] = []
    try:
        for source, target in places.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()  # it is empty
            done.append(target)
            shutil.move(source, target)
    except OSError as error:
        for path in done:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise PipelineError(f"{done[-1] if done else target}: cannot be written: {error}") from error


if __name__ == "__main__":
    main()
