"""SIGKILL anywhere: `dvc repro` again ends as if nothing had happened, and the run goes on."""

import random
import re
import time
from pathlib import Path

import pytest

from tests import jobs
from tests.jobs import EPOCHS, NAME, Job

pytestmark = [pytest.mark.timeout(900), pytest.mark.faults]

TRAIN = ("dvc", "repro", f"train@{NAME}")
WAYS = ("stage", "dvc", "group")
STOPPING = {"monitor": "val_loss", "patience": 8, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}
PARAMS = jobs.small_params(
    batchnorm={"epochs": EPOCHS, "early_stopping": STOPPING, "reduce_learning_rate": REDUCING}
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with a variant that has dropout, normalization and both callbacks, before its training."""
    return jobs.make(tmp_path_factory.mktemp("prepared") / "job", PARAMS, "prepare", "recipes")


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


def epochs_in(printed: str) -> int:
    """The last epoch whose line was printed."""
    return max((int(number) for number in re.findall(r"  epoch (\d+)/", printed)), default=0)


def resumed_after(printed: str) -> int:
    """The epoch after which a training resumed; 0 if it started anew."""
    found = re.search(rf"{NAME.rsplit('-', 1)[0]}: resuming after epoch (\d+)", printed)
    return int(found[1]) if found else 0


def killed_again_and_again(prepared: Job, expected: Job, folder: Path, ways: list[str], seed: int) -> int:
    """Train a copy of a job, killed at random moments until it ends; how often it was killed."""
    moments, kills, before = random.Random(seed), 0, ""
    job = jobs.copied(prepared, folder)
    while True:
        dvc = job.start(*TRAIN)
        if kills < len(ways):
            time.sleep(moments.uniform(3, 15))
            if dvc.poll() is None:
                jobs.kill(job, dvc, ways[kills])
                kills += 1
        printed, _ = dvc.communicate(timeout=400)
        if "resuming" in printed or epochs_in(printed):  # it was not killed before that
            assert resumed_after(printed) >= epochs_in(before) - 1
        if dvc.returncode == 0:
            assert_trained_once(job, expected)
            return kills
        before = printed if epochs_in(printed) else before


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
    ways = [WAYS[number % 3] for number in range(20)]
    seed = 0
    while ways:
        seed += 1
        kills = killed_again_and_again(prepared, expected, tmp_path / str(seed), ways, seed)
        ways = ways[kills:]


def test_a_kill_in_each_other_stage_changes_nothing(complete: Job, tmp_path: Path) -> None:
    job = jobs.make(tmp_path / "job", PARAMS)
    stages = ("fetch", "prepare", "recipes", "predict", "evaluate", "promote", "report")
    for number, stage in enumerate(stages):
        dvc = job.start("dvc", "repro")
        jobs.wait_for(lambda stage=stage: jobs.processes(job, stage))
        time.sleep(random.Random(stage).uniform(0.2, 3))
        jobs.kill(job, dvc, WAYS[number % 3], stage)
        dvc.communicate(timeout=400)
    job.run("dvc", "repro")
    assert job.outs() == complete.outs()
    assert_trained_once(job, complete)
    assert {run.info.status for run in job.runs()} == {"FINISHED"}
    assert sorted(run.info.run_name or "" for run in job.runs()) == [NAME, "report"]
    [version] = job.client.search_model_versions("name = 'digits'")
    assert job.client.get_model_version_by_alias("digits", "champion").version == version.version
