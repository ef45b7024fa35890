"""Checks that MLflow's store answers and that its schema is the installed MLflow's.

MLflow retries for minutes if nothing answers. It upgrades an older store silently as soon as a table is
missing, and calls a newer one out of date. So the stages check the store before they open it.
"""

import logging
import os
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
import sqlalchemy
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES

from pipeline.shared.errors import PipelineError, in_a_line
from pipeline.shared.lock import locked_on_this_machine

SECONDS_TO_ANSWER = 10
MIGRATIONS = Path(mlflow.__file__).parent / "store/db_migrations"

# Loggers of what becomes one line, here and in `tracking.best_effort`.
NOISY = (
    "mlflow.store.db.utils",
    "mlflow.system_metrics",
    "mlflow.utils.async_logging",
    "urllib3.connectionpool",
)


def check() -> None:
    """Raise PipelineError if the store does not answer or belongs to another version of MLflow.

    Also if a server's address holds a password, which MLflow would print after each run. A store that does
    not exist yet is fine. From now on MLflow waits at most half a minute for a server that stopped.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it says that it tries the input example
    for uri in sorted({mlflow.get_tracking_uri(), mlflow.get_registry_uri()}):
        if urlsplit(uri).scheme in {"http", "https"} and urlsplit(uri).username is not None:
            raise PipelineError(
                "MLFLOW_TRACKING_URI: an address without user and password is allowed; they go into "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        if not is_database(uri):
            check_answer(uri)
            continue
        with locked_on_this_machine(uri):  # while one process creates the store, the others wait
            found = revision(uri)
            if found is None:
                make(uri)
                continue
        url = sqlalchemy.make_url(uri).render_as_string(hide_password=True)
        if is_newer(found):
            raise PipelineError(
                f"{url}: a newer MLflow's store (its schema, {found}, is unknown to MLflow "
                f"{version('mlflow')}): install the MLflow that made it, or restore a backup of before"
            )
        if is_older(found):
            raise PipelineError(
                f"{url}: an older MLflow's store (its schema is {found}, which MLflow {version('mlflow')} "
                f"can upgrade): `make backup`, then `mlflow db upgrade {url}`"
            )


def check_answer(uri: str) -> None:
    """Raise PipelineError if no server answers at an address, or MLflow does not know this kind of store."""
    try:
        if urlsplit(uri).scheme in {"http", "https"}:
            requests.get(f"{uri.rstrip('/')}/health", timeout=SECONDS_TO_ANSWER)
        else:
            mlflow.MlflowClient(uri)
    except (MlflowException, requests.RequestException) as error:
        reason = in_a_line(error)
        raise PipelineError(f"MLFLOW_TRACKING_URI: no answer from {uri}: {reason}") from error


def is_database(uri: str) -> bool:
    """Whether a tracking URI names a database, and not a server or a folder."""
    return uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def revision(uri: str) -> str | None:
    """The revision of a database's schema; None if it has no schema of MLflow yet."""
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite" and not (file := Path(url.database or "")).is_file():
        if not can_be_made(file):
            raise PipelineError(f"MLFLOW_TRACKING_URI: no answer from {url}: {file} cannot be made")
        return None
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with closing(engine.connect()) as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:  # the second for want of a driver
        reason = in_a_line(getattr(error, "orig", error))
        raise PipelineError(
            f"MLFLOW_TRACKING_URI: no answer from {url.render_as_string()}: {reason}"
        ) from error


def make(uri: str) -> None:
    """Create an SQLite store, all or nothing: a partial one would look like an older one."""
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not (file := Path(url.database)).exists():
        partial = file.with_name(f"{file.name}.partial")
        partial.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.rename(file)


def can_be_made(file: Path) -> bool:
    """Whether a file may be written in its folder, which is created if missing."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    return os.access(file.parent, os.W_OK)


def is_newer(found: str) -> bool:
    """Whether the installed MLflow does not know a revision."""
    try:
        ScriptDirectory(str(MIGRATIONS)).get_revision(found)
    except CommandError:
        return True
    return False


def is_older(found: str) -> bool:
    """Whether a revision, which the installed MLflow knows, is not its last."""
    return found != ScriptDirectory(str(MIGRATIONS)).get_current_head()
