"""SIGKILL anywhere: `dvc repro` again ends as if nothing had happened, and the run goes on."""

import os
import random
import re
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from pipeline import train as train_stage
from pipeline.running import worker
from tests import jobs
from tests.conftest import Clone
from tests.jobs import EPOCHS, NAME, Job

pytestmark = [pytest.mark.timeout(900), pytest.mark.faults]

TRAIN = ("dvc", "repro", f"train@{NAME}")
WAYS = ("stage", "dvc", "group")
KILLS = 20
STOPPING = {"monitor": "val_loss", "patience": 20, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}
PARAMS = jobs.small_params(
    batchnorm={
        "epochs": EPOCHS,
        "training_images": 400,
        "early_stopping": STOPPING,
        "reduce_learning_rate": REDUCING,
    }
)


@pytest.fixture(scope="module")
def prepared(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with a variant that has dropout, normalization and both callbacks, before its training."""
    job = jobs.before_training(clone, tmp_path_factory.mktemp("prepared") / "job", PARAMS)
    job.run("dvc", "repro", "--quiet", "recipes")
    return job


@pytest.fixture(scope="module")
def expected(prepared: Job) -> Job:
    """A copy whose training was never killed."""
    job = jobs.copied(prepared, prepared.folder.with_name("expected"))
    job.run(*TRAIN)
    return job


@pytest.fixture(scope="module")
def complete(expected: Job) -> Job:
    """The same to the report."""
    expected.run("dvc", "repro")
    return expected


def assert_trained_once(job: Job, expected: Job) -> None:
    """The same model, one whole run of it, nothing of a checkpoint beside the last."""
    for name in ("model.keras", "history.csv", "training.json"):
        path = Path("models") / NAME / name
        assert (job.folder / path).read_bytes() == (expected.folder / path).read_bytes(), name
    [run] = [run for run in job.runs() if run.info.run_name == NAME]
    [other] = [run for run in expected.runs() if run.info.run_name == NAME]
    assert run.info.status == "FINISHED"
    for metric in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "kept_val_accuracy"):
        assert job.steps(run, metric) == expected.steps(other, metric) != [], metric
    figures = {key: value for key, value in run.data.metrics.items() if key.startswith(("val_", "kept_"))}
    assert figures.items() <= other.data.metrics.items()
    assert run.data.params.items() <= other.data.params.items()  # promotion adds its own
    digests = {key: value for key, value in other.data.tags.items() if key.endswith("_digest")}
    assert digests.items() <= run.data.tags.items()
    found = job.client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' and name = 'model'"
    )
    assert [model.status for model in found] == ["READY"]


def resumed_after(printed: str) -> int:
    """The epoch after which a training resumed; 0 if it started anew."""
    found = re.search(rf"{NAME.rsplit('-', 1)[0]}: resuming after epoch (\d+)", printed)
    return int(found[1]) if found else 0


def train(folder: Path, store: str) -> None:
    """What `python -m pipeline.train` does, in a process that has imported TensorFlow already."""
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = store
    sys.argv = ["train", *NAME.split("-")]
    with Path("train.log").open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        train_stage.main()


def test_a_training_that_is_killed_with_all_that_started_it_goes_on(
    prepared: Job, expected: Job, tmp_path: Path
) -> None:
    job = jobs.copied(prepared, tmp_path / "job")
    dvc = job.start(*TRAIN)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= 3)
    jobs.kill(job, dvc, "group")
    dvc.communicate()
    [run] = job.runs()
    assert run.info.status == "RUNNING"
    printed = job.run("python", "-m", "pipeline.sync")
    assert printed == f"sync: {NAME}: ended its run, which was killed\n"
    assert job.client.get_run(run.info.run_id).info.status == "KILLED"
    printed = job.run(*TRAIN)
    assert resumed_after(printed) >= 3
    assert_trained_once(job, expected)


def test_a_training_that_outlives_its_dvc_is_waited_for_and_not_done_twice(
    prepared: Job, expected: Job, tmp_path: Path
) -> None:
    job = jobs.copied(prepared, tmp_path / "job")
    dvc = job.start(*TRAIN)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= 1)
    dvc.kill()
    dvc.wait()
    assert jobs.processes(job, "train")
    printed = job.run(*TRAIN)
    assert f"train-{NAME}: waiting for another process" in printed
    assert resumed_after(printed) >= 1
    dvc.communicate()
    assert not jobs.processes(job, "train")
    assert_trained_once(job, expected)


def test_a_clock_that_jumps_by_years_changes_nothing(prepared: Job, expected: Job, tmp_path: Path) -> None:
    real = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}  # as a jump of the date leaves it
    job = jobs.copied(prepared, tmp_path / "job", **real)
    train = ("python", "-m", "pipeline.train", *NAME.split("-"))
    training = job.start("faketime", "-m", "-f", "+800d", *train)
    jobs.wait_for(lambda: jobs.trained_epochs(job) >= 3)
    jobs.kill(job, training, "group")
    training.communicate()
    printed = job.run("faketime", "-m", "-f", "-800d", *train)
    assert resumed_after(printed) >= 3
    assert_trained_once(job, expected)


def test_twenty_kills_at_random_moments_change_nothing(prepared: Job, expected: Job, tmp_path: Path) -> None:
    """Of one training that goes on between them; if it ends before, of another one."""
    moments, kills, number = random.Random(0), 0, 0
    worker.stop()  # the server of other tests, which has imported less
    worker.FORKS.set_forkserver_preload(["pipeline.training.body", "tests.test_kill"])
    while kills < KILLS:
        number += 1
        job = jobs.copied(prepared, tmp_path / str(number))
        while True:
            process = worker.FORKS.Process(target=train, args=(job.folder, job.store))
            process.start()
            if kills < KILLS:
                process.join(moments.uniform(0.2, 4))
                kills += process.is_alive()
                process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (job.folder / "train.log").read_text()
        assert_trained_once(job, expected)
    worker.stop()


def test_a_kill_in_each_other_stage_changes_nothing(complete: Job, tmp_path: Path) -> None:
    job = jobs.make(tmp_path / "job", PARAMS)
    stages = ("fetch", "prepare", "recipes", "predict", "evaluate", "promote", "report")
    for number, stage in enumerate(stages):
        dvc = job.start("dvc", "repro")
        jobs.wait_for(lambda stage=stage: jobs.processes(job, stage))
        time.sleep(random.Random(stage).uniform(0.2, 2))
        jobs.kill(job, dvc, WAYS[number % 3], stage)
        dvc.communicate(timeout=400)
    job.run("dvc", "repro")
    assert job.outs() == complete.outs()
    assert_trained_once(job, complete)
    assert {run.info.status for run in job.runs()} == {"FINISHED"}
    assert sorted(run.info.run_name or "" for run in job.runs()) == [NAME, "report"]
    [version] = job.client.search_model_versions("name = 'digits'")
    assert job.client.get_model_version_by_alias("digits", "champion").version == version.version
