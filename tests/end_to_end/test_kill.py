"""SIGKILL anywhere: `dvc repro` again ends as if nothing had happened, and the run goes on."""

import random
import re
import signal
import time
from contextlib import chdir
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.core.arrays import read_arrays
from pipeline.running import worker
from pipeline.shared.served_predictor import served_predictor
from pipeline.stages.promote.packaging import example_request
from pipeline.support.model_files import ModelFiles
from tests import projects
from tests.conftest import Clone
from tests.processes import kill, output_of, processes, wait_for
from tests.projects import NAME, Project

pytestmark = pytest.mark.faults

# In each stage in turn what is killed: its process, `dvc`, or both.
KILLED = "fetch group, prepare dvc, recipes stage, train group, train dvc, predict dvc, evaluate group"
KILLED += ", promote stage, diagnose group, report dvc"
KILLS, EPOCHS = 10, 30
RESIDUAL = '''

def residual(inputs: keras.KerasTensor, width: int = 8) -> keras.KerasTensor:
    """A nested block with normalization beside a skip connection."""
    from pipeline.stages.train.augmentation import RandomShift

    stem = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(RandomShift(2)(inputs))
    block = [layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    branch = keras.Sequential([keras.Input((16, 16, width)), *block], name="block")(stem)
    return layers.Flatten()(layers.Dropout(0.2)(layers.MaxPooling2D(4)(stem + branch)))
'''
PARAMS = projects.small_params(
    batchnorm={
        "network": {"name": "residual", "width": 8},
        "label_smoothing": 0.1,
        "epochs": EPOCHS,
        "training_images": 400,
        "early_stopping": {"monitor": "val_loss", "patience": 20, "restore_best_weights": True},
        "reduce_learning_rate": {"monitor": "val_loss", "factor": 0.5, "patience": 1},
    }
)


def with_network(job: Project) -> Project:
    """The job with the network of a user's own."""
    with (job.folder / "pipeline/stages/recipes/networks.py").open("a") as file:
        file.write(RESIDUAL)
    return job


@pytest.fixture(scope="module")
def prepared(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A job with a variant that has all that a checkpoint keeps, before its training."""
    job = with_network(projects.before_training(clone, tmp_path_factory.mktemp("prepared") / "job", PARAMS))
    job.run("dvc", "repro", "--quiet", "recipes")
    return job


@pytest.fixture(scope="module")
def expected(prepared: Project) -> Project:
    """A copy in which all ran and nothing was ever killed."""
    job = projects.copied(prepared, prepared.folder.with_name("expected"))
    job.run("dvc", "repro")
    return job


def assert_trained_once(job: Project, expected: Project) -> None:
    """The same model, one whole run of it, nothing of a checkpoint beside the last."""
    for name in ("model.keras", "history.csv", "training.json"):
        path = Path("models") / NAME / name
        assert (job.folder / path).read_bytes() == (expected.folder / path).read_bytes(), name
    [run] = [run for run in job.runs() if run.info.run_name == NAME]
    [other] = [run for run in expected.runs() if run.info.run_name == NAME]
    assert run.info.status == "FINISHED"
    for metric in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "validation/accuracy"):
        assert job.steps(run, metric) == expected.steps(other, metric) != [], metric
    found = job.client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' and name = '{NAME}'"
    )
    assert [model.status for model in found] == ["READY"]


def resumed_after(printed: str) -> int:
    """The epoch after which a training resumed; 0 if it started anew."""
    found = re.search(rf"{NAME.rsplit('-', 1)[0]}: resuming after epoch (\d+)", printed)
    return int(found[1]) if found else 0


def test_a_clock_that_jumps_by_years_changes_nothing(
    prepared: Project, expected: Project, tmp_path: Path
) -> None:
    real = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}  # as a jump of the date leaves it
    job = projects.copied(prepared, tmp_path / "job", **real)
    train = ("python", "-m", "pipeline", "train", *NAME.split("-"))
    training = job.start("faketime", "-m", "-f", "+800d", *train)
    wait_for(lambda: job.trained_epochs() >= 3, process=training)
    kill(job.folder, training, "group")
    training.communicate()
    printed = job.run("faketime", "-m", "-f", "-800d", *train)
    assert resumed_after(printed) >= 3
    assert_trained_once(job, expected)


def test_kills_at_random_moments_change_nothing(prepared: Project, expected: Project, tmp_path: Path) -> None:
    """Of one training that goes on between them; if it ends before, of another one."""
    moments, kills, number = random.Random(0), 0, 0
    worker.end_server()  # the server of other tests, which has imported less
    while kills < KILLS:
        number += 1
        job = projects.copied(prepared, tmp_path / str(number))
        while True:
            process = projects.start_training(job)
            if kills < KILLS:
                process.join(moments.uniform(0.2, 4))
                kills += process.is_alive()
                process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (job.folder / f"{NAME}.log").read_text()
        assert_trained_once(job, expected)
    worker.end_server()


def test_a_kill_in_each_stage_changes_nothing_up_to_the_served_champion(
    expected: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is killed with its `dvc`. Then only `dvc` is, and the next one waits for the training."""
    job, started = with_network(projects.make(tmp_path / "job", PARAMS)), []
    for stage, what in (pair.split() for pair in KILLED.split(", ")):
        dvc = job.start("dvc", "repro")
        started.append(dvc)
        wait_for(lambda stage=stage: processes(job.folder, stage), process=dvc)
        wait_for(lambda stage=stage: stage != "train" or job.trained_epochs() >= 3, process=dvc)
        time.sleep(random.Random(stage).uniform(0.2, 2) if stage != "train" else 0)
        kill(job.folder, dvc, what, stage)
        dvc.wait()
        if (stage, what) == ("train", "group"):
            [run] = job.runs()
            assert run.info.status == "RUNNING"
            ended = job.run("python", "-m", "pipeline", "sync")
            assert ended.startswith(f"sync: {NAME}: ended its run, which was killed\n")
            assert job.client.get_run(run.info.run_id).info.status == "KILLED"
    printed = "".join(output_of(dvc) for dvc in started)
    assert resumed_after(printed) >= 3
    assert f"train-{NAME}: waiting for another process" in printed
    job.run("dvc", "repro")
    assert job.outs() == expected.outs()
    assert_trained_once(job, expected)
    assert {run.info.status for run in job.runs()} == {"FINISHED"}
    training, report = sorted(job.runs(), key=lambda run: str(run.info.run_name))
    assert (training.info.run_name, report.info.run_name) == (NAME, "report")
    [version] = job.client.search_model_versions("name = 'digits'")
    assert job.client.get_model_version_by_alias("digits", "champion").version == version.version

    monkeypatch.setenv("MLFLOW_TRACKING_URI", job.store)
    image = np.array(read_arrays(job.folder / "data/prepared/test")["images"][0])
    [answer] = mlflow.pyfunc.load_model("models:/digits@champion").predict(example_request(image))
    with chdir(job.folder):
        predicted = served_predictor(ModelFiles("batchnorm", 0), "auto").probabilities("test")[0]
    assert list(answer["probabilities"].values()) == pytest.approx(predicted.tolist(), abs=1e-5)
