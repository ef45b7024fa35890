"""A tracking server on Postgres and S3: runs, promotions, its faults, and a dump of its database."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
import pytest

from pipeline.running import worker
from pipeline.support import mlflow_runs, mlflow_store
from tests import projects
from tests.called import call
from tests.conftest import Clone
from tests.processes import output_of, wait_for
from tests.projects import NAME, Project
from tests.servers import POSTGRES, free_port, mlflow_server, postgres, s3_server

EPOCHS = 10
TRAIN = ("python", "-m", "pipeline", "train", *NAME.split("-"))
SEEDS = [f"batchnorm-{seed}" for seed in range(8)]


@dataclass
class Server:
    """An `mlflow server` that stops and starts, always on the same port; its database and S3 keep running."""

    folder: Path
    database: str
    s3: dict[str, str]
    port: int = field(default_factory=free_port)
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        artifacts = "s3://bucket/mlflow"  # as in docs/cluster.md
        starting = mlflow_server(self.folder, self.database, self.port, artifacts, **self.s3)
        self.running.enter_context(starting)

    @property
    def uri(self) -> dict[str, str]:
        """The environment of its clients."""
        return {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with postgres() as database, s3_server(folder) as s3:
        made = Server(folder, database, s3)
        made.start()
        with made.running:
            yield made


@pytest.mark.system
def test_sync_fills_the_store_and_the_champion_loads_from_it(
    clone: Clone, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished quickstart: each training's run, promotion and the champion, all through HTTP."""
    copy = clone.copy_quickstart(tmp_path)
    done = call(copy.folder, "sync", **server.uri)
    assert (done.error, done.out.count("logged its run")) == (None, 3)
    assert {run.info.status for run in Project(copy.folder, server.uri).runs()} == {"FINISHED"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri["MLFLOW_TRACKING_URI"])
    model = mlflow.pyfunc.load_model("models:/digits@champion")
    assert set(model.predict(model.input_example)[0]) == {"label", "confidence", "probabilities"}


@pytest.mark.system
def test_a_dump_restored_to_another_database_has_the_same_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/upkeep.md says."""
    address = server.database.removesuffix("/postgres")
    plain = address.replace("+psycopg2", "")

    def run(program: str, *arguments: str) -> None:
        subprocess.run([POSTGRES / program, *arguments], check=True, capture_output=True)

    for name in ("before", "after"):
        run("psql", f"--dbname={plain}/postgres", f"--command=create database {name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}/before")
    mlflow_store.check()
    with mlflow_runs.training_run("digits", "shallow-0", {"variant": "shallow"}) as run_id:
        mlflow.log_metric("val_loss", 0.5)
    run("pg_dump", "--format=custom", "--file=mlflow.dump", f"{plain}/before")
    run("pg_restore", "--no-owner", f"--dbname={plain}/after", "mlflow.dump")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}/after")
    mlflow_store.check()
    found = mlflow_runs.find_run("digits", {"variant": "shallow"})
    assert found is not None
    assert (found.info.run_id, found.data.metrics["val_loss"]) == (run_id, 0.5)


def prepared(folder: Path, changes: dict[str, int], environment: dict[str, str]) -> Project:
    """A job before its training, whose runs go to an experiment of its own."""
    params = projects.small_params(batchnorm={"early_stopping": None} | changes)
    params["data"]["name"] = folder.name.replace("_", "-")
    return projects.prepared(folder / "job", params, **environment)


def assert_whole(job: Project, names: list[str], epochs: int) -> None:
    """One run of each training in one experiment, FINISHED, with every epoch once and a model."""
    experiment = job.client.get_experiment_by_name(job.folder.parent.name.replace("_", "-"))
    assert experiment is not None
    runs = job.client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name or "" for run in runs) == names
    for run in runs:
        assert run.info.status == "FINISHED"
        assert job.steps(run) == list(range(epochs))
        assert "model_digest" in run.data.tags
    models = job.client.search_logged_models([experiment.experiment_id])
    assert [model.status for model in models] == ["READY"] * len(names)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_eight_trainings_at_once_all_have_whole_runs(server: Server, tmp_path: Path, kind: str) -> None:
    """In a store that does not exist yet, or on the server in an experiment that does not."""
    uri = server.uri if kind == "server" else {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/new.db"}
    job = prepared(tmp_path, {"epochs": 4, "training_images": 400}, uri)
    worker.end_server()  # the server of other tests, which has imported less
    trainings = {name: projects.start_training(job, name) for name in SEEDS}
    for name, training in trainings.items():
        training.join(600)
        printed = (job.folder / f"{name}.log").read_text()
        assert training.exitcode == 0, printed
        assert "locked" not in printed
        assert "not complete" not in printed
    assert_whole(job, SEEDS, 4)


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Project:
    return prepared(tmp_path, {"epochs": EPOCHS}, server.uri | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})


@contextmanager
def held(training: "subprocess.Popen[str]") -> Iterator[None]:
    """A training stands still meanwhile, so that it cannot end first."""
    training.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        training.send_signal(signal.SIGCONT)


@pytest.mark.faults
def test_a_server_that_stops_loses_no_training_and_sync_completes_its_run(
    server: Server, job: Project
) -> None:
    training = job.start(*TRAIN)
    wait_for(lambda: job.trained_epochs() >= 2, process=training)
    with held(training):
        server.running.close()
    printed = output_of(training)
    assert training.returncode == 0, printed
    assert f"{NAME}: its run is not complete" in printed
    assert "`make sync` completes it" in printed
    assert "Traceback" not in printed
    assert (job.folder / "models" / NAME / "model.keras").is_file()
    refused = job.run("python", "-m", "pipeline", "sync", check=False)
    assert refused.startswith("error: MLFLOW_TRACKING_URI: no answer from ")
    assert refused.count("\n") == 1
    server.start()
    assert f"sync: {NAME}: logged its run" in job.run("python", "-m", "pipeline", "sync")
    assert_whole(job, [NAME], EPOCHS)
    assert job.run("python", "-m", "pipeline", "sync").startswith("sync: nothing was missing\n")


@contextmanager
def hanging(address: str) -> Iterator[None]:
    """A server takes requests meanwhile, and does not answer."""
    everyone, port = psutil.Process().children(recursive=True), address.rpartition(":")[2]
    (first,) = [one for one in everyone if {"server", port} <= {*one.cmdline()}]
    stopped = [first, *first.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()


@pytest.mark.faults
def test_a_server_that_hangs_holds_up_no_training_and_no_command(clone: Clone, tmp_path: Path) -> None:
    copy = clone.copy_quickstart(tmp_path)
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as address:
        job = prepared(tmp_path, {"epochs": EPOCHS}, {"MLFLOW_TRACKING_URI": address})
        training = job.start(*TRAIN)
        wait_for(lambda: job.trained_epochs() >= 2, process=training)
        with hanging(address):
            begun = time.monotonic()
            printed = output_of(training)
            assert time.monotonic() - begun < 120
            for command in ("rollback", "champion", "sync", "promote"):
                begun = time.monotonic()
                refused = call(copy.folder, command, MLFLOW_TRACKING_URI=address).refusal
                assert time.monotonic() - begun < 30
                assert refused.startswith("MLFLOW_TRACKING_URI: no answer from ")
        assert training.returncode == 0, printed
        assert printed.count(f"{NAME}: its run is not complete") == 1
        assert f"{NAME}: waiting for MLflow to log its run\n" in printed
        assert f"sync: {NAME}: logged its run" in job.run("python", "-m", "pipeline", "sync")
        assert_whole(job, [NAME], EPOCHS)


@pytest.mark.faults
def test_a_run_catches_up_with_a_server_that_is_back_before_the_end(server: Server, job: Project) -> None:
    training = job.start(*TRAIN)
    wait_for(lambda: job.trained_epochs() >= 1, process=training)
    with held(training):
        server.running.close()
        before = job.trained_epochs()
    wait_for(lambda: job.trained_epochs() >= before + 2, process=training)
    with held(training):
        server.start()
    printed = output_of(training)
    assert training.returncode == 0, printed
    assert "not complete" not in printed
    assert_whole(job, [NAME], EPOCHS)
