"""A tracking server that stops: the training continues, and its run is complete once the server is back."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import jobs
from tests.jobs import NAME, Job
from tests.servers import free_port, mlflow_server, postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

EPOCHS = 40
TRAIN = ("python", "-m", "pipeline.train", *NAME.split("-"))


@dataclass
class Server:
    """An `mlflow server` that stops and starts, always on the same port."""

    folder: Path
    store: str
    port: int = field(default_factory=free_port)
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def address(self) -> str:
        """Where it listens while it runs."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.running.enter_context(mlflow_server(self.folder, self.port, self.store))

    def stop(self) -> None:
        self.running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a Postgres, which keeps running while the server is stopped."""
    with postgres(tmp_path_factory.mktemp("postgres")) as store:
        made = Server(tmp_path_factory.mktemp("server"), store)
        made.start()
        yield made
        made.stop()


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Job:
    """A job before its training, whose runs go to an experiment of its own on the server."""
    params = jobs.small_params(batchnorm={"epochs": EPOCHS, "early_stopping": None})
    params["data"]["name"] = tmp_path.name.replace("_", "-")
    tracking = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    return jobs.make(tmp_path / "job", params, "prepare", "recipes", **tracking)


def assert_whole(job: Job) -> None:
    """One run of the training, FINISHED, with every epoch once and a model."""
    experiment = job.client.get_experiment_by_name(job.folder.parent.name.replace("_", "-"))
    assert experiment is not None
    [run] = job.client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert job.steps(run) == list(range(EPOCHS))
    assert "model_digest" in run.data.tags
    [model] = job.client.search_logged_models([experiment.experiment_id])
    assert model.status == "READY"


def test_a_server_that_stops_loses_no_training_and_sync_completes_its_run(server: Server, job: Job) -> None:
    training = job.start(*TRAIN)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= 2)
    server.stop()
    printed, _ = training.communicate(timeout=400)
    assert training.returncode == 0, printed
    assert f"{NAME}: its run is not complete" in printed
    assert "`make sync` completes it" in printed
    assert "Traceback" not in printed
    assert (job.folder / "models" / NAME / "model.keras").is_file()
    refused = job.run("python", "-m", "pipeline.sync", check=False)
    assert refused.startswith("error: MLFLOW_TRACKING_URI: no answer from ")
    assert refused.count("\n") == 1
    server.start()
    assert f"sync: {NAME}: completed its run" in job.run("python", "-m", "pipeline.sync")
    assert_whole(job)
    assert job.run("python", "-m", "pipeline.sync") == "sync: nothing was missing\n"


def test_a_run_catches_up_with_a_server_that_is_back_before_the_end(server: Server, job: Job) -> None:
    training = job.start(*TRAIN)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= 1)
    server.stop()
    before = jobs.trained_epochs(job)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= before + 2)
    server.start()
    printed, _ = training.communicate(timeout=400)
    assert training.returncode == 0, printed
    assert "not complete" not in printed
    assert_whole(job)
