"""MLflow's store: another version's, an unreachable one, one whose address holds a password, a new one."""

import os
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import mlflow.cli
import mlflow.db
import pytest
import sqlalchemy
from alembic import command as alembic
from click.testing import CliRunner
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base

from pipeline.commands import plan
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError
from tests.called import call
from tests.conftest import ROOT, Clone, refusal
from tests.servers import answering

MLFLOW_3_0 = "6953534de441"  # the schema of MLflow 3.0, the oldest that is supported
RUN, TAGS = "0123456789abcdef0123456789abcdef", {"variant": "shallow", "seed": "0"}
OLD_RUN = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
  VALUES (1, 'digits', '{root}', 'active');
INSERT INTO runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id,
  user_id, source_type, source_name, entry_point_name, source_version)
  VALUES ('{run}', 'shallow-0', 'FINISHED', 1, 2, 'active', '{root}/{run}/artifacts', 1,
  '', 'LOCAL', '', '', '');
INSERT INTO tags (run_uuid, key, value) VALUES ('{run}', 'variant', 'shallow'), ('{run}', 'seed', '0');
INSERT INTO params (run_uuid, key, value) VALUES ('{run}', 'epochs', '30');
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
  VALUES ('{run}', 'val_loss', 0.5, 1, 0, 0);
INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
  VALUES ('{run}', 'val_loss', 0.5, 1, 0, 0);
INSERT INTO registered_models (name, creation_time) VALUES ('digits', 1);
INSERT INTO model_versions (name, version, creation_time, current_stage, source, run_id, status)
  VALUES ('digits', 1, 1, 'None', '{root}/{run}/artifacts/served_model', '{run}', 'READY');
INSERT INTO registered_model_aliases (name, alias, version) VALUES ('digits', 'champion', 1);
"""


def make_store(folder: Path, revision: str) -> str:
    """An SQLite store as MLflow's own migrations leave it at a revision; its URI."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.upgrade(config, revision)
    engine.dispose()
    return uri


def execute(uri: str, statements: str) -> None:
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        for statement in filter(str.strip, statements.split(";\n")):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow 3.0 with a run, its metrics and a champion."""
    folder = tmp_path_factory.mktemp("old")
    uri = make_store(folder, MLFLOW_3_0)
    execute(uri, OLD_RUN.format(root=folder / "mlruns/1", run=RUN))
    return folder


@pytest.fixture
def old(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of it, as the store that is used."""
    shutil.copy(made / "mlflow.db", tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_another_mlflows_store_and_a_file_that_is_none_are_refused_and_left_as_they_are(old: str) -> None:
    before = Path("mlflow.db").read_bytes()
    outdated = rf"{old}: .* \(found version {{}}, .*Take a backup .* run 'mlflow db upgrade <database_uri>' "
    with pytest.raises(PipelineError, match=outdated.format(MLFLOW_3_0)):
        mlflow_store.check()
    assert Path("mlflow.db").read_bytes() == before
    execute(old, "UPDATE alembic_version SET version_num = 'fedcba987654'")  # a newer one's
    with pytest.raises(PipelineError, match=outdated.format("fedcba987654")):
        mlflow_store.check()
    Path("mlflow.db").write_text("not a database, and long enough to be read as if it were one" * 20)
    with pytest.raises(PipelineError, match=f"no answer from {old}: file is not a database$"):
        mlflow_store.check()


def test_a_new_store_is_complete_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new.db")
    Path("new.db.partial").write_text("left by a process that was killed while it made the store")
    mlflow_store.check()
    mlflow_store.check()
    assert [path.name for path in Path().iterdir()] == ["new.db"]
    assert mlflow_store.revision("sqlite:///new.db") == _get_latest_schema_revision()
    mlflow.set_experiment("digits")
    assert capfd.readouterr() == ("", "")


def test_a_relative_address_names_the_same_store_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db?timeout=60")
    mlflow_store.anchor(tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db?timeout=60"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db?timeout=60"),
        ("sqlite:///link/mlflow.db", "sqlite+pysqlite:///mlflow.db"),
        ("http://localhost:5000", "http://127.0.0.1:5000/"),
        ("https://Tracking.example/mlflow/", "https://tracking.example:443/mlflow"),
        ("postgresql://a:b@localhost/mlflow", "postgresql+psycopg2://[::1]/mlflow?user=a"),
        ("mlruns", "file://{here}/mlruns"),
    ],
)
def test_all_spellings_of_one_store_are_one_lock(workplace: Path, one: str, other: str) -> None:
    Path("link").symlink_to(workplace)
    other = other.format(here=workplace)
    assert mlflow_store.same_store(one) == mlflow_store.same_store(other)
    for change in (("mlflow", "second"), ("mlruns", "second"), (":5000", ":5001")):
        if change[0] in one:
            assert mlflow_store.same_store(one) != mlflow_store.same_store(other.replace(*change))


def test_an_upgraded_store_has_its_runs_and_its_champion_and_takes_new_ones(old: str) -> None:
    """As docs/upkeep.md says."""
    CliRunner().invoke(mlflow.db.commands, ["upgrade", old], catch_exceptions=False)
    mlflow_store.check()
    run = mlflow_runs.find_run("digits", TAGS)
    assert run is not None
    assert (run.info.run_id, run.data.params, run.data.metrics) == (RUN, {"epochs": "30"}, {"val_loss": 0.5})
    version = mlflow.MlflowClient().get_model_version_by_alias("digits", "champion")
    assert (str(version.version), version.run_id) == ("1", RUN)
    with mlflow_runs.training_run("digits", "shallow-1", TAGS | {"seed": "1"}):
        mlflow.log_metric("val_loss", 0.4)


# One line within seconds, without any password.
NO_ANSWER, NO_USER = "no answer from ", "must have no user, password or query; set "
NO_ADDRESS = "postgresql://***: not an address of a database; "
ADDRESSES = {
    "http://ada:hunter2@[::1": f"{NO_ANSWER}http://***@[::1: Invalid IPv6 URL",
    "http://ada:hunter2@127.0.0.1:9": NO_USER,
    "http://127.0.0.1:9/?token=hunter2": NO_USER,
    "nonsense://ada:hunter2@there?token=hunter2": f"{NO_ANSWER}nonsense://***@there?***: ",
    "sqlite:////proc/none/mlflow.db": f"{NO_ANSWER}sqlite:////proc/none/mlflow.db: ",
    "postgresql+psycopg2://u:hunter2@127.0.0.1:9/db": f"{NO_ANSWER}postgresql+psycopg2://***@127.0.0.1:9",
    "postgresql:///db?host=127.0.0.1&port=9&user=u&password=hunter2": f"{NO_ANSWER}postgresql:///db?***: ",
    "postgresql://u:p@hunter2@127.0.0.1:9/db": NO_ADDRESS,
    "postgresql:hunter2": NO_ADDRESS,
    f"sqlite:///{ROOT}": f"{NO_ANSWER}sqlite:///{ROOT}: unable to open database file",
}


@pytest.mark.parametrize(
    ("variable", "uri"),
    [
        *(("MLFLOW_TRACKING_URI", uri) for uri in ADDRESSES),
        ("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9"),
        ("MLFLOW_REGISTRY_URI", "postgresql:hunter2"),
        ("MLFLOW_REGISTRY_URI", "sqlite:////proc/none/mlflow.db"),
    ],
)
def test_a_store_that_does_not_answer_is_one_line_within_seconds_and_without_its_password(
    uri: str, variable: str
) -> None:
    begun = time.monotonic()
    done = call(ROOT, "rollback", **{variable: uri})
    assert time.monotonic() - begun < 30
    assert done.refusal.startswith(f"{variable}: {ADDRESSES.get(uri, NO_ANSWER)}")
    assert "hunter2" not in done.refusal
    assert (done.out, done.err) == ("", "")


class Hanging(BaseHTTPRequestHandler):
    """Answers `/health`, and then takes requests that it never answers."""

    ended = threading.Event()

    def do_GET(self) -> None:
        if self.path != "/health":
            self.ended.wait(300)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@pytest.mark.parametrize("command", ["rollback", "champion"])
def test_a_server_that_hangs_is_one_line_within_seconds(command: str) -> None:
    Hanging.ended.clear()
    with answering(Hanging) as address:
        begun = time.monotonic()
        done = call(ROOT, command, MLFLOW_TRACKING_URI=address)
        Hanging.ended.set()
    assert time.monotonic() - begun < 40
    assert re.match(rf"MLflow: API request to {address}/\S+ failed with timeout exception", done.refusal)
    assert (done.out, done.err) == ("", "")


def test_a_proxy_without_its_server_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class BadGateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(502)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), BadGateway) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
        with pytest.raises(PipelineError, match=r"no answer from http://127\.0\.0\.1:\d+: .*502"):
            mlflow_store.check()
        proxy.shutdown()


def test_a_deleted_experiment_is_refused_before_a_training_with_the_command_that_restores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow_runs.set_experiment("digits")
    mlflow.MlflowClient().delete_experiment("1")

    def train() -> None:
        with mlflow_runs.training_run("digits", "shallow-0", TAGS):
            pytest.fail("a training started")

    line = refusal(train)
    assert refusal(plan.earlier_wall_seconds, "digits") == line
    assert line.startswith("MLflow: experiment 'digits' was deleted: run `mlflow experiments restore ")
    restore = line.split("`")[1].split()
    CliRunner().invoke(mlflow.cli.cli, restore[1:], catch_exceptions=False)
    assert plan.earlier_wall_seconds("digits") == {}


@pytest.mark.faults
def test_every_command_refuses_another_mlflows_store_in_one_line(
    clone: Clone, old: str, tmp_path: Path
) -> None:
    folder, before = clone.copy_quickstart(tmp_path).folder, (tmp_path / "mlflow.db").read_bytes()
    (folder / "selection.json").unlink()  # so `repro` has something to run
    commands = ["train shallow 0", "evaluate shallow 0", "promote", "report", "sync", "repro", "rollback"]
    for command in [*commands, "classify --index 0 --model models:/digits@champion"]:
        refused = call(folder, *command.split(), MLFLOW_TRACKING_URI=old).refusal
        assert refused.startswith(f"{old}: Detected out-of-date database schema"), command
        assert (tmp_path / "mlflow.db").read_bytes() == before
    assert not list(folder.glob(".pipeline/checkpoints/*"))  # nothing was trained
