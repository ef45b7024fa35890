"""Check that MLflow's store answers and has the schema of the installed MLflow.

MLflow retries for minutes if nothing answers. It upgrades an older store silently as soon as a table is
missing, and calls a newer one out of date. So the stages check the store before they open it.
"""

import logging
import os
import re
import time
from contextlib import chdir, closing, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking import DEFAULT_TRACKING_URI
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.locks import locked_on_this_machine

SECONDS_TO_ANSWER = 10
SECONDS_FOR_A_MIGRATION = 2
MIGRATIONS = Path(mlflow.__file__).parent / "store/db_migrations"

# Loggers whose messages are replaced by one line, here and in `tracking.best_effort`.
NOISY = (
    "mlflow.store.db.utils",
    "mlflow.system_metrics",
    "mlflow.utils.async_logging",
    "urllib3.connectionpool",
)


def check() -> None:
    """Raise PipelineError if the store does not answer or belongs to another version of MLflow.

    A store that does not exist yet is created. From now on MLflow waits at most half a minute for a server
    that stopped.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each experiment that it creates
    if root := checkout():
        anchor(root)
    check_uri(tracking := mlflow.get_tracking_uri())
    if (registry := mlflow.get_registry_uri()) != tracking:
        check_uri(registry)


def check_uri(uri: str) -> None:
    """Raise PipelineError if nothing answers at an address, or its store belongs to another MLflow."""
    check_database(uri) if is_database(uri) else check_server(uri)


def checkout() -> Path | None:
    """The checkout that started this experiment, if `dvc exp run` runs it in a temporary folder."""
    root = Path(os.environ.get("DVC_ROOT", "")).resolve()
    return root if "DVC_EXP_NAME" in os.environ and root != Path.cwd() else None


def anchor(root: Path) -> None:
    """Let MLFLOW_TRACKING_URI name the same store in every folder: a relative path starts at `root`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    os.environ["MLFLOW_TRACKING_URI"] = moved(uri, root)


def moved(uri: str, folder: Path) -> str:
    """A tracking URI; a relative path of an SQLite file is taken from `folder`."""
    url = database_url(uri) if uri.startswith("sqlite") else None
    if url is None or not url.database:
        return uri
    return url.set(database=str(folder / url.database)).render_as_string(hide_password=False)


def check_server(uri: str) -> None:
    """Raise PipelineError if no server answers at an address, or MLflow does not know this kind of store.

    Also if the address holds a password, which MLflow would print after each run.
    """
    try:
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"}:
            mlflow.MlflowClient(uri)
            return
        if "@" in parts.netloc or parts.query:
            raise PipelineError(
                "MLFLOW_TRACKING_URI: must have no user, password or query; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        server = get_default_host_creds(uri)  # with the certificates and the user that MLflow takes
        http_request(server, "/health", "GET", max_retries=0, timeout=SECONDS_TO_ANSWER)
    except (MlflowException, ValueError) as error:  # the last for `http://[`
        raise PipelineError(f"MLFLOW_TRACKING_URI: no answer from {uri}: {in_a_line(error)}") from error


def check_database(uri: str) -> None:
    """Raise PipelineError if a database does not answer or has the schema of another version of MLflow."""
    with locked_on_this_machine(uri):  # while one process creates the store, the others wait
        known = known_revisions()
        found = settled_revision(uri, known[0])
        if found is None:
            make(uri)
        elif found not in known:
            raise PipelineError(
                f"{uri}: a newer MLflow's store (its schema, {found}, is unknown to MLflow "
                f"{version('mlflow')}): install the MLflow that made it, or restore a backup that is older"
            )
        elif found != known[0]:
            raise PipelineError(
                f"{uri}: an older MLflow's store (its schema is {found}, which MLflow {version('mlflow')} "
                f"can upgrade): run `make backup`, then `mlflow db upgrade {uri}`"
            )


def is_database(uri: str) -> bool:
    """Whether a tracking URI names a database, and not a server or a folder."""
    return uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def database_url(uri: str) -> sqlalchemy.URL:
    """The parts of a database's address. Raises PipelineError, without any of them, if it is not valid."""
    with suppress(ValueError, sqlalchemy.exc.ArgumentError):
        url = sqlalchemy.make_url(uri)
        if "@" not in (url.host or "") and (url.get_backend_name() == "sqlite" or not re.search(r"\s", uri)):
            return url
    raise PipelineError(
        f"MLFLOW_TRACKING_URI: {uri.partition(':')[0]}://***: not an address of a database; "
        "in a password, write @ as %40, / as %2F and a space as %20"
    )


def revision(uri: str) -> str | None:
    """The revision of a database's schema; None if it has no schema of MLflow yet."""
    url = database_url(uri)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with closing(engine.connect()) as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    except Exception as error:  # a driver that is missing or does not know an option raises anything
        reason = in_a_line(getattr(error, "orig", error))
        raise PipelineError(f"MLFLOW_TRACKING_URI: no answer from {uri}: {reason}") from error


def settled_revision(uri: str, newest: str) -> str | None:
    """The revision of a database's schema, after waiting for a process that migrates it.

    `mlflow ui` creates a store by some forty migrations, and takes no lock. One that has not begun to migrate
    is not noticed.
    """
    found = revision(uri)
    while found not in {None, newest}:
        time.sleep(SECONDS_FOR_A_MIGRATION)
        before, found = found, revision(uri)
        if found == before:
            break
    return found


def make(uri: str) -> None:
    """Create an SQLite store, all or nothing: a partial one would look like an older one."""
    url = database_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not (file := Path(url.database)).exists():
        partial = file.absolute().with_name(f"{file.name}.partial")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(b"")
        except OSError as error:
            raise PipelineError(f"MLFLOW_TRACKING_URI: no answer from {uri}: {error}") from error
        with chdir(partial.parent):  # where the experiment `Default` keeps its artifacts
            mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.rename(partial.with_name(file.name))


def known_revisions() -> list[str]:
    """The revisions of a schema that the installed MLflow knows, its own first."""
    return [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
