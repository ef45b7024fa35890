"""A store of another MLflow: told in one line before anything is changed, and good after its upgrade."""

import shutil
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from mlflow.store.tracking.dbmodels.initial_models import Base

from pipeline.champion import gate, registry
from pipeline.records import store, tracking
from pipeline.shared.errors import PipelineError
from tests import jobs
from tests.conftest import BIN
from tests.jobs import Job
from tests.test_registry import new_candidate

MLFLOW_3_0 = "6953534de441"  # the schema of MLflow 3.0, the oldest that is supported
RUN, NAME, TAGS = "0123456789abcdef0123456789abcdef", "digits", {"variant": "shallow", "seed": "0"}
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
INSERT INTO model_version_tags (name, version, key, value)
  VALUES ('digits', 1, 'validation_accuracy', '0.500000'), ('digits', 1, 'split_digest', 'split');
INSERT INTO registered_model_aliases (name, alias, version) VALUES ('digits', 'champion', 1);
"""


def make_store(folder: Path, revision: str) -> str:
    """An SQLite store as MLflow's own migrations leave it at a revision; its URI."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    config = Config()
    config.set_main_option("script_location", str(store.MIGRATIONS))
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return uri


def execute(uri: str, statements: str) -> None:
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        for statement in filter(str.strip, statements.split(";\n")):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


def upgrade(uri: str) -> None:
    """As docs/upkeep.md says."""
    done = subprocess.run([BIN / "mlflow", "db", "upgrade", uri], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_older_store_is_refused_with_the_way_out_and_left_as_it_is(old: str) -> None:
    before = Path("mlflow.db").read_bytes()
    with pytest.raises(PipelineError, match=f"`make backup`, then `mlflow db upgrade {old}`$") as caught:
        store.check()
    assert str(caught.value).startswith(f"{old}: an older MLflow's store (its schema is {MLFLOW_3_0}, ")
    assert Path("mlflow.db").read_bytes() == before


def test_newer_store_is_refused_with_the_way_out(old: str) -> None:
    execute(old, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    with pytest.raises(PipelineError, match=r"restore a backup of before$") as caught:
        store.check()
    assert "a newer MLflow's store (its schema, fedcba987654, is unknown to MLflow " in str(caught.value)


def test_file_that_is_no_database_is_refused(old: str) -> None:
    Path("mlflow.db").write_text("not a database, and long enough to be looked at as if it were one" * 20)
    with pytest.raises(
        PipelineError, match=f"^MLFLOW_TRACKING_URI: no answer from {old}: file is not a database$"
    ):
        store.check()


def test_store_that_is_to_be_made_is_made_whole(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del old
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new.db")
    Path("new.db.partial").write_text("left by one that was killed while it made the store")
    store.check()
    store.check()
    assert sorted(path.name for path in Path().iterdir()) == ["mlflow.db", "new.db"]
    revision = store.revision("sqlite:///new.db")
    assert revision is not None
    assert not store.is_older(revision)


@pytest.mark.parametrize("driver", ["psycopg2", "mysqldb"])  # one that is installed and one that is not
def test_database_that_cannot_be_reached_is_told_without_its_password(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "postgresql" if driver == "psycopg2" else "mysql"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}+{driver}://mlflow:hunter2@127.0.0.1:9/mlflow")
    with pytest.raises(PipelineError, match=r"no answer from .*mlflow:\*\*\*@127.0.0.1:9/mlflow: ") as caught:
        store.check()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://ada:hunter2@127.0.0.1:9", "https://hunter2@127.0.0.1:9"])
def test_password_in_a_servers_address_is_refused_for_mlflow_prints_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(
        PipelineError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    ) as caught:
        store.check()
    assert "hunter2" not in str(caught.value)


def test_upgraded_store_gives_its_runs_and_its_champion(old: str) -> None:
    upgrade(old)
    store.check()
    run = tracking.find_run(NAME, TAGS)
    assert run is not None
    assert (run.info.run_id, run.data.params, run.data.metrics) == (RUN, {"epochs": "30"}, {"val_loss": 0.5})
    champion = registry.version_at(NAME, registry.CHAMPION)
    assert champion is not None
    assert gate.accuracy_of(champion) == 0.5


@pytest.mark.faults
def test_upgraded_store_takes_runs_and_a_new_champion(old: str, tmp_path: Path) -> None:
    upgrade(old)
    with tracking.training_run(NAME, "shallow-1", TAGS | {"seed": "1"}) as run_id:
        mlflow.log_metric("val_loss", 0.4)
    candidate = new_candidate(tmp_path, 1, 0.6, registered_name=NAME, run_id=run_id)
    assert registry.promote(candidate, 0.1).startswith("digits: version 2 is champion: ")
    assert registry.rollback(NAME) == "digits: version 1 is champion again, version 2 is previous"


COMMANDS = ["train shallow 0", "evaluate shallow 0", "promote", "report", "sync", "repro", "rollback"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with a champion and a report."""
    params = jobs.small_params(shallow={"epochs": 1})
    return jobs.make(tmp_path_factory.mktemp("finished") / "job", params, "report")


@pytest.mark.faults
@pytest.mark.parametrize("entry", [*COMMANDS, "classify --index 0 --model models:/digits@champion"])
@pytest.mark.parametrize("kind", ["an older", "a newer"])
def test_every_command_tells_another_mlflows_store_in_one_line(
    finished: Job, old: str, tmp_path: Path, entry: str, kind: str
) -> None:
    if kind == "a newer":
        execute(old, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    before = (tmp_path / "mlflow.db").read_bytes()
    job = jobs.copied(finished, tmp_path / "job", MLFLOW_TRACKING_URI=old)
    if entry == "repro":  # with something to run
        (job.folder / "champion.json").unlink()
    process = job.start("python", "-m", *f"pipeline.{entry}".split())
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.startswith(f"error: {old}: {kind} MLflow's store ("), told
    assert told.count("\n") == 1
    assert (tmp_path / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "http://no-such-host.invalid",
        "postgresql+psycopg2://someone:secret@127.0.0.1:9/mlflow",
        "sqlite:////proc/none/mlflow.db",
        "nonsense://somewhere",
    ],
)
def test_store_that_does_not_answer_is_told_in_seconds(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    begun = time.monotonic()
    with pytest.raises(PipelineError, match="no answer from") as caught:
        store.check()
    assert time.monotonic() - begun < 30
    assert "secret" not in str(caught.value)
