"""A tracking server on Postgres: trainings side by side, promotion and the champion through HTTP."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.records import store, tracking
from tests.conftest import ROOT, Clone
from tests.servers import POSTGRES, free_port, mlflow_server, postgres

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a database of a Postgres of its own."""
    with postgres(tmp_path_factory.mktemp("postgres")) as uri:
        yield uri


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[str]:
    """The address of an `mlflow server` whose store is that database."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port(), database) as address:
        yield address


def test_trainings_side_by_side_are_whole_and_one_is_promoted(clone: Clone, tracking_server: str) -> None:
    more = {"MLFLOW_TRACKING_URI": tracking_server}
    folder = clone.folder / "quickstart"
    trainings = [
        subprocess.Popen(
            ["python", "-m", "pipeline.train", variant, "0"],
            cwd=folder,
            env=clone.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for variant in ("shallow", "baseline")
    ]
    for training in trainings:
        output, _ = training.communicate(timeout=300)
        assert training.returncode == 0, output
    clone.run("python", "-m", "pipeline.sync", folder="quickstart", more=more)

    client = MlflowClient(tracking_server)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    own = {run.info.run_name for run in runs if "recreated" not in run.data.tags}
    assert {"shallow-0", "baseline-0"} <= own
    for run in runs:
        if run.info.run_name in {"shallow-0", "baseline-0"}:
            history = client.get_metric_history(run.info.run_id, "val_loss")
            assert [point.step for point in history] == list(
                range(10 if run.info.run_name == "shallow-0" else 5)
            )
    assert client.get_model_version_by_alias("digits", "champion").status == "READY"


RACE = """
import sys, time
import mlflow
from pipeline.records import tracking

mlflow.MlflowClient().search_experiments()
for number in range(6):
    while time.time() < float(sys.argv[1]) + 2 * number:
        time.sleep(0.001)
    with tracking.training_run(f"race{number}", sys.argv[2], {}):
        pass
"""


def test_runs_of_processes_that_make_their_experiment_at_once_are_all_in_it(tracking_server: str) -> None:
    start = str(time.time() + 10)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, start, name],
            cwd=ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking_server},
            stdout=subprocess.DEVNULL,
        )
        for name in ("one", "two", "three")
    ]
    assert [racer.wait(timeout=200) for racer in racers] == [0, 0, 0]
    client = MlflowClient(tracking_server)
    for number in range(6):
        experiment = client.get_experiment_by_name(f"race{number}")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert {run.info.run_name for run in runs} == {"one", "two", "three"}


def test_a_dump_restored_to_another_database_has_the_same_runs(database: str, tmp_path: Path) -> None:
    """As docs/upkeep.md says."""
    address = database.removesuffix("/postgres")
    plain = address.replace("+psycopg2", "")
    for name in ("before", "after"):
        command = [str(POSTGRES / "psql"), f"--dbname={plain}/postgres", f"--command=create database {name}"]
        subprocess.run(command, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("MLFLOW_TRACKING_URI", f"{address}/before")
        store.check()
        with tracking.training_run("digits", "shallow-0", {"variant": "shallow"}) as run_id:
            mlflow.log_metric("val_loss", 0.5)
        dump = str(tmp_path / "mlflow.dump")
        whole = ["--format=custom", f"--file={dump}", f"{plain}/before"]
        subprocess.run([POSTGRES / "pg_dump", *whole], check=True)
        back = ["--no-owner", f"--dbname={plain}/after", dump]
        subprocess.run([POSTGRES / "pg_restore", *back], check=True)
        patch.setenv("MLFLOW_TRACKING_URI", f"{address}/after")
        store.check()
        run = tracking.find_run("digits", {"variant": "shallow"})
    assert run is not None
    assert (run.info.run_id, run.data.metrics["val_loss"]) == (run_id, 0.5)


def test_the_champion_loads_from_the_server(tracking_server: str) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_server)
    try:
        model = mlflow.pyfunc.load_model("models:/digits@champion")
        answer = model.predict(model.input_example)
    finally:
        mlflow.set_tracking_uri(before)
    assert set(answer[0]) == {"label", "confidence", "probabilities"}
