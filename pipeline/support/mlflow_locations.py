"""Where MLflow's files are: a checkout may be moved, and MLflow's pages and `mlflow gc` delete files.

MLflow (3.17) stores absolute paths, and has no command that changes them. In a moved checkout new artifacts
would go to the old folder, and old ones would be missing.
"""

import sys
from pathlib import Path

import mlflow
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

RUNS = "mlruns"  # where MLflow keeps artifacts, by default
EXPERIMENTS = "SELECT artifact_location FROM experiments"
COLUMNS = (  # that hold an experiment's path or one in it
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
MOVE = """
UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)
WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'
"""


def follow_checkout(engine: sqlalchemy.Engine) -> None:
    """Let an SQLite store that was moved or copied with its checkout find its files, and say so.

    Changes the paths of its experiments in one transaction, but only those of MLflow's default folder.
    """
    file = Path(str(engine.url.database)).resolve()
    if engine.url.get_backend_name() != "sqlite" or not Path.cwd().is_relative_to(file.parent):
        return
    with engine.begin() as connection:
        locations = connection.scalars(sqlalchemy.text(EXPERIMENTS)).all()
        moved = {old: new for old in locations if (new := _new_place(old, file))}
        for old, new in moved.items():
            for table, column in COLUMNS:
                statement = sqlalchemy.text(MOVE.format(table=table, column=column))
                connection.execute(statement, {"old": old, "new": str(new)})
    if moved:
        print(f"{file.name}: was moved or copied: its files are now in {file.parent / RUNS}", file=sys.stderr)


def _new_place(location: str, store: Path) -> Path | None:
    """Where an experiment's files are now, if its location is in a checkout that was moved or copied."""
    folder = Path(local_file_uri_to_path(location))
    if not folder.is_absolute() or folder.parent.name != RUNS:  # a server's, or a person's choice
        return None
    root, here = folder.parents[1], store.parent
    if root.resolve() == here:
        return None
    new = here / RUNS / folder.name
    elsewhere = not root.is_dir() or (root / store.name).is_file()
    return new if new.is_dir() or (elsewhere and not root.is_relative_to(here)) else None


def has_files(uri: str) -> bool:
    """Whether the files of a logged or registered model are there: they may have been deleted."""
    try:
        mlflow.models.get_model_info(uri)
    except (MlflowException, OSError):
        return False
    return True
