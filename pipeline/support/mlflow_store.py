"""Check that MLflow's store answers and has the schema of the installed MLflow.

MLflow retries for minutes if nothing answers, and upgrades an older store silently as soon as a table is
missing. So the stages check the store before they open it.
"""

import logging
import os
import re
import socket
from contextlib import chdir, suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.db.utils import _get_schema_version, _verify_schema
from mlflow.store.tracking import DEFAULT_TRACKING_URI
from mlflow.utils.file_utils import local_file_uri_to_path

from pipeline.support import mlflow_server
from pipeline.support.errors import JOB, PipelineError, in_a_line
from pipeline.support.locks import locked_on_this_machine
from pipeline.support.mlflow_locations import follow_checkout

TRACKING = "MLFLOW_TRACKING_URI"

# Loggers whose messages are replaced by one line, here and in `mlflow_server.best_effort`.
NOISY = (
    "mlflow.store.db.utils",
    "mlflow.system_metrics",
    "mlflow.utils.async_logging",
    "urllib3.connectionpool",
)


def check() -> None:
    """Raise PipelineError if the store does not answer or belongs to another version of MLflow.

    A store that does not exist yet is created; one that was moved with its checkout finds its files. From now
    on MLflow waits for its server as `mlflow_server` says.
    """
    mlflow_server.wait_briefly()
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each experiment that it creates
    if root := checkout():
        anchor(root)
    _check_uri(tracking := mlflow.get_tracking_uri(), TRACKING)
    if (registry := mlflow.get_registry_uri()) != tracking:
        _check_uri(registry, "MLFLOW_REGISTRY_URI")


def check_existing(where: str) -> None:
    """As `check`, but refuse a store that does not exist in a line that begins with `where`."""
    tracking = mlflow.get_tracking_uri()
    if is_database(tracking) and revision(tracking) is None:
        raise PipelineError(
            f"{where}: there is no MLflow store yet in this folder; train, or set MLFLOW_TRACKING_URI"
        )
    check()


def checkout() -> Path | None:
    """The checkout that started this experiment, if `dvc exp run` runs it in a temporary folder."""
    root = Path(os.environ.get("DVC_ROOT", "")).resolve()
    return root if "DVC_EXP_NAME" in os.environ and root != Path.cwd() else None


def anchor(root: Path) -> None:
    """Let MLFLOW_TRACKING_URI name the same store in every folder: a relative path of an SQLite file starts
    at `root`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    if uri.startswith("sqlite") and (file := database_url(uri).database):
        uri = database_url(uri).set(database=str(root / file)).render_as_string(hide_password=False)
    os.environ["MLFLOW_TRACKING_URI"] = uri


def anchor_job(folder: Path) -> None:
    """Let a job, in a folder of this checkout, use the checkout's store, and be named in what it prints."""
    anchor(Path.cwd())
    os.environ[JOB] = str(folder)


def _check_uri(uri: str, variable: str) -> None:
    """Raise PipelineError if nothing answers at a variable's address, or its store is another MLflow's.

    Also if a server's address holds a password, which MLflow would print after each run.
    """
    if is_database(uri):
        _check_database(uri, variable)
        return
    try:
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"}:
            mlflow.MlflowClient(uri)
            return
        if "@" in parts.netloc or parts.query:
            raise PipelineError(
                f"{variable}: must have no user, password or query; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        mlflow_server.ping(uri, max_retries=0)
    except (MlflowException, ValueError) as error:  # the last for `http://[`
        raise PipelineError(f"{variable}: no answer from {uri}: {in_a_line(error)}") from error


def _check_database(uri: str, variable: str) -> None:
    with locked_on_this_machine(same_store(uri, variable)):  # while one creates the store, the others wait
        if revision(uri, variable) is None:
            create(uri, variable)
        engine = _engine(database_url(uri, variable))
        try:
            _verify_schema(engine)
        except MlflowException as error:
            raise PipelineError(f"{uri}: {in_a_line(error)}") from error
        follow_checkout(engine)


def is_database(uri: str) -> bool:
    """Whether a tracking URI names a database, and not a server or a folder."""
    return uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def same_store(uri: str, variable: str = TRACKING) -> str:
    """One name for all spellings of a store's address, such as a relative path or `localhost`."""
    if is_database(uri):
        url = database_url(uri, variable)
        if url.get_backend_name() == "sqlite":
            return f"sqlite {Path(url.database or '').resolve()}"
        return f"{url.get_backend_name()} {_same_host(url.host)} {url.port} {url.database}"
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"http {_same_host(parts.hostname)} {port} {parts.path.rstrip('/')}"
    return str(Path(local_file_uri_to_path(uri)).resolve())


def _same_host(name: str | None) -> str:
    """A host's name; `localhost` for all names of this machine."""
    name = (name or "localhost").lower().rstrip(".")
    with suppress(ValueError):
        return "localhost" if ip_address(name).is_loopback else ip_address(name).compressed
    return "localhost" if name == socket.gethostname().lower() else name


def database_url(uri: str, variable: str = TRACKING) -> sqlalchemy.URL:
    """The parts of a database's address. Raises PipelineError, without any of them, if it is not valid."""
    with suppress(ValueError, sqlalchemy.exc.ArgumentError):
        url = sqlalchemy.make_url(uri)
        if "@" not in (url.host or "") and (url.get_backend_name() == "sqlite" or not re.search(r"\s", uri)):
            return url
    raise PipelineError(
        f"{variable}: {uri.partition(':')[0]}://***: not an address of a database; "
        "in a password, write @ as %40, / as %2F and a space as %20"
    )


def revision(uri: str, variable: str = TRACKING) -> str | None:
    """The revision of a database's schema; None if it has no schema of MLflow yet."""
    url = database_url(uri, variable)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return None
    try:
        found: str | None = _get_schema_version(_engine(url))
    except Exception as error:  # a driver that is missing or does not know an option raises anything
        reason = in_a_line(getattr(error, "orig", error))
        raise PipelineError(f"{variable}: no answer from {uri}: {reason}") from error
    return found


def create(uri: str, variable: str = TRACKING) -> None:
    """Create a store. A new SQLite file is complete or absent: part of it would look like an older store."""
    url = database_url(uri, variable)
    if url.get_backend_name() != "sqlite" or not url.database or (file := Path(url.database)).exists():
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
        return
    partial = file.absolute().with_name(f"{file.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"")
    except OSError as error:
        raise PipelineError(f"{variable}: no answer from {uri}: {error}") from error
    with chdir(partial.parent):  # where the experiment `Default` keeps its artifacts
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.rename(partial.with_name(file.name))


def _engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)  # keeps none open
