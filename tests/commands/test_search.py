"""`make search`: a search that was killed ends as one that was not, and its best trial can be pasted."""

import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from mlflow.entities import Run

from pipeline.core.arrays import write_json
from pipeline.params import Params
from tests import projects
from tests.called import call
from tests.conftest import ROOT, add_environment
from tests.processes import output_of, processes, wait_for
from tests.projects import Project
from tests.ray_nodes import Nodes
from tests.servers import free_port, mlflow_server

RANGES = {
    "optimizer.learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
    "batch_size": [32, 64, 5000],  # the last is more than there are images
    "epochs": [6, 9],
    "label_smoothing": {"low": 0.0, "high": 0.3},
}
SEARCH = ("python", "-m", "pipeline", "search", "shallow", "--trials=6", "--jobs=1")


def new_job(folder: Path, ranges: dict[str, Any], **changes: Any) -> Project:
    """A job before its trainings, with ranges for `shallow`."""
    job = projects.prepared(folder, projects.small_params(shallow={"epochs": 9} | changes))
    (folder / "search.yaml").write_text(yaml.safe_dump({"shallow": ranges}))
    return job


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A job before its search; tests take a copy."""
    return new_job(tmp_path_factory.mktemp("search") / "job", RANGES)


@pytest.fixture
def job(before: Project, tmp_path: Path) -> Project:
    """A job before its search."""
    return projects.copied(before, tmp_path / "job", **before.more)


@pytest.fixture(scope="module")
def finished(before: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A job after its search, and what that printed."""
    job = projects.copied(before, tmp_path_factory.mktemp("finished") / "job", **before.more)
    return job, job.run(*SEARCH)


def searches(job: Project) -> tuple[Run, list[Run]]:
    """The run of the only search, and those of its trials, in their order."""
    (parent,) = [run for run in job.runs() if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in job.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(trials, key=lambda run: int(run.data.tags["trial"]))


def table(job: Project) -> pd.DataFrame:
    """The trials that trained."""
    return pd.read_csv(job.folder / "search/shallow/trials.csv")


def worker_of(job: Project, trial: int) -> psutil.Process | None:
    """The process that trains a trial, once it has saved an epoch."""
    own = job.folder / ".pipeline/search/shallow/.pipeline"
    if not (own / f"checkpoints/shallow-trial-{trial}-0.npz").is_file():
        return None
    lock = str(own / f"locks/train-shallow-trial-{trial}-0.lock")
    for process in processes(own.parent):
        if lock in [file.path for file in process.open_files()]:
            return process
    return None


def test_trials_are_a_table_and_runs_and_the_best_is_a_block_that_can_be_pasted(
    finished: tuple[Project, str], tmp_path: Path
) -> None:
    job, printed = finished
    parent, runs = searches(job)
    trials = table(job)
    first, best = trials.iloc[0], trials.sort_values("kept").dropna(subset="kept").iloc[-1]
    assert list(first[["optimizer.learning_rate", "batch_size", "epochs"]]) == [0.001, 32, 9]
    assert f"validation accuracy {best['kept']:.4f}" in printed
    assert parent.data.metrics["validation/accuracy"] == best["kept"]
    assert parent.data.metrics["cpu_seconds"] == pytest.approx(trials["cpu_seconds"].sum())
    trained = [run for run in runs if run.info.status == "FINISHED"]
    assert [run.data.metrics.get("validation/accuracy", np.nan) for run in trained] == pytest.approx(
        trials["kept"].tolist(), nan_ok=True
    )
    assert [job.steps(run, "val_accuracy") for run in trained] == [
        [*range(n)] for n in trials["trained_epochs"]
    ]
    assert {path.name for path in (job.folder / "search/shallow").iterdir()} == {
        *("trials.csv", "best.yaml", "history.png", "epochs.png", "importances.png")
    }
    assert [path.name for path in (job.folder / ".pipeline/search").iterdir()] == ["shallow.db"]

    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    params["variants"] |= yaml.safe_load((job.folder / "search/shallow/best.yaml").read_text())
    (pasted := tmp_path / "pasted.yaml").write_text(json.dumps(params))
    block = Params.read(pasted).variants["shallow"]
    assert block.optimizer.learning_rate == pytest.approx(best["optimizer.learning_rate"])
    assert (block.batch_size, block.epochs) == (best["batch_size"], best["epochs"])
    shutil.copy(job.folder / "params.yaml", overridden := tmp_path / "overridden.yaml")
    words = shlex.split(printed.splitlines()[-1].partition("or: dvc exp run")[2])
    apply_overrides(overridden, [word for word in words if word != "-S"])
    assert Params.read(overridden).variants["shallow"] == block


def test_trials_that_fall_behind_are_stopped_and_refused_ones_say_why(finished: tuple[Project, str]) -> None:
    job, printed = finished
    _, runs = searches(job)
    stopped = table(job)[lambda trials: trials["kept"].isna()]
    assert 0 < len(stopped) < len(table(job))
    assert set(stopped["trained_epochs"]) <= {2, 6}  # of 9
    assert printed.count(", stopped after epoch ") == len(stopped)
    refused = [run for run in runs if run.info.status == "FAILED"]
    reason = "variants.shallow.batch_size: must be at most 1293, the number of training images; received 5000"
    assert refused
    assert {run.data.tags["reason"] for run in refused} == {f"params.yaml: {reason}"}
    assert printed.count(reason) == len(refused)


@pytest.mark.faults
def test_a_killed_search_ends_as_one_that_ran_through(job: Project, finished: tuple[Project, str]) -> None:
    """First a worker is killed, then twice the whole search, which at last gets more trials."""
    fewer = (*SEARCH, "--trials=5")
    process = job.start(*fewer)
    wait_for(lambda: worker_of(job, 0), process=process).kill()
    wait_for(lambda: len(job.runs()) > 2, process=process)  # another trial
    os.killpg(process.pid, signal.SIGKILL)
    assert "shallow-trial-0-0: died (its process ended with -9) after" in process.communicate()[0]
    process = job.start(*fewer)
    [resumed, *_] = wait_for(lambda: [n for n in range(5) if worker_of(job, n)], process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    printed = job.run(*SEARCH)
    assert f"shallow-trial-{resumed}-0: shallow: resuming after epoch" in printed
    assert "trial 0: " not in printed

    assert table(job).drop(columns="cpu_seconds").equals(table(finished[0]).drop(columns="cpu_seconds"))
    parent, runs = searches(job)
    assert parent.info.status == "FINISHED"
    assert [run.data.params for run in runs] == [run.data.params for run in searches(finished[0])[1]]


def test_a_trial_with_seeds_has_the_mean_of_the_same_trainings_as_the_stage(tmp_path: Path) -> None:
    """Bit for bit: the first trial has the settings of params.yaml."""
    job = new_job(tmp_path / "job", {"batch_size": [32, 64]}, epochs=2)
    assert call(job.folder, "search", "shallow", "--trials=1", "--seeds=2").error is None
    accuracies = []
    for seed in "01":
        assert call(job.folder, "train", "shallow", seed).error is None
        record = json.loads((job.folder / f"models/shallow-{seed}/training.json").read_text())
        accuracies.append(record["metrics"]["validation/accuracy"])
    [trial] = table(job).to_dict("records")
    assert trial["kept"] == np.mean(accuracies)
    assert trial["trained_epochs"] == 2  # of the first seed, which alone is compared with other trials


def test_a_search_is_for_the_metric_that_chooses(tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", {"batch_size": [32, 64]}, epochs=2)
    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    params["promotion"] = {"metric": "loss"}
    (job.folder / "params.yaml").write_text(yaml.safe_dump(params))
    printed = call(job.folder, "search", "shallow", "--trials=2").out
    first = table(job).iloc[0]
    assert 0 < first["kept"] < 0.6 < first["accuracy"]
    assert f"shallow: the best of 2 trials has validation loss {table(job)['kept'].min():.4f}\n" in printed
    parent, runs = searches(job)
    assert parent.data.metrics["validation/loss"] == table(job)["kept"].min()
    assert runs[0].data.metrics["validation/loss"] == first["kept"]


def test_a_training_that_diverges_counts_as_nothing_right(tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", {"optimizer.learning_rate": [1e30, 1e31]}, epochs=2)
    printed = call(job.folder, "search", "shallow", "--trials=1").out
    assert "the best of 1 trial has validation accuracy 0.0000" in printed


def test_a_search_in_which_no_trial_finishes_says_why(tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", {"batch_size": [4000, 5000]}, epochs=2)
    refusal = call(job.folder, "search", "shallow", "--trials=2").refusal
    assert refusal.startswith(
        "search: no trial of shallow finished: params.yaml: variants.shallow.batch_size: "
    )


def test_a_study_that_cannot_be_read_is_refused_in_one_line(job: Project) -> None:
    (job.folder / ".pipeline/search").mkdir()
    (job.folder / ".pipeline/search/shallow.db").write_text("no database")
    refusal = call(job.folder, "search", "shallow").refusal
    assert refusal.startswith(".pipeline/search/shallow.db: ")
    assert refusal.endswith("file is not a database; delete it to begin anew")


def test_sync_removes_what_searches_of_removed_variants_have_left(job: Project) -> None:
    for variant in ("shallow", "gone"):
        (job.folder / f".pipeline/search/{variant}").mkdir(parents=True)
    printed = call(job.folder, "sync").out
    assert "sync: .pipeline/search/gone: removed, since params.yaml does not name it\n" in printed
    assert [path.name for path in (job.folder / ".pipeline/search").iterdir()] == ["shallow"]


@pytest.mark.faults
def test_a_search_survives_its_tracking_server_and_completes_its_runs(job: Project, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    job = Project(
        job.folder, job.more | {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    )
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db", port):
        process = job.start(*SEARCH)
        wait_for(lambda: "FINISHED" in {run.info.status for run in job.runs()}, process=process)
        process.send_signal(signal.SIGSTOP)  # so that it cannot end before the server
    process.send_signal(signal.SIGCONT)
    printed = output_of(process)
    assert process.returncode == 1
    assert "the trials are logged when the search ends (MLflow: " in printed
    assert "\nor: dvc exp run " in printed
    assert "the same command completes it" in printed
    assert "Traceback" not in printed
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db", port):
        printed = job.run(*SEARCH)
        parent, runs = searches(job)
        assert {run.info.status for run in (parent, *runs)} == {"FINISHED", "FAILED"}
        trained = [run for run in runs if run.info.status == "FINISHED"]
        epochs = [len(job.steps(run, "val_accuracy")) for run in trained]
        assert epochs == table(job)["trained_epochs"].tolist()
    assert "/runs/" not in printed.partition("validation accuracy")[0]  # no link for each trial


@pytest.mark.system  # Ray, which `make cluster` installs
def test_a_search_that_was_killed_here_goes_on_on_two_nodes(job: Project, nodes: Nodes) -> None:
    process = job.start(*SEARCH)
    wait_for(lambda: worker_of(job, 0), process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    nodes.add(num_cpus=1)
    nodes.add(num_cpus=1)
    printed = job.run(*SEARCH[:-1], "--executor=ray", RAY_ADDRESS=nodes.address)
    assert "shallow-trial-0-0: shallow: resuming after epoch" in printed
    assert ", stopped after epoch " in printed
    parent, runs = searches(job)
    assert parent.info.status == "FINISHED"
    assert len(runs) == 6
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    assert not list(job.folder.parent.glob("node*/pipeline-shallow-*"))


def test_make_refuses_a_misspelled_variant_before_it_installs_ray(before: Project, tmp_path: Path) -> None:
    """The folder lacks the lock of Ray, so that there is no rule to install it."""
    job = projects.copied(before, tmp_path / "job")
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, job.folder)
    add_environment(job.folder)
    shutil.copytree(ROOT / "pipeline", job.folder / "pipeline")
    printed = job.run("make", "search", "VARIANT=shalow", "EXECUTOR=ray", check=False)
    assert "error: search.yaml: shalow: no such variant with ranges; there are: shallow\n" in printed
    assert "cluster" not in printed


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ({"shallow": {"batch_size": [0, 32]}}, "shallow: batch_size: must be greater than 0; received 0"),
        ({"shallow": {"epoch": [1, 2]}}, "shallow: epoch: unknown key"),
        ({"shallow": {"epochs": {"lo": 3}}}, "shallow.epochs.lo: unknown key; allowed: low, high, log"),
        ({"shallow": {"network": ["shallow", "unheard_of"]}}, "shallow: network: allowed: translate, "),
        ({"shallow": {}}, "shallow: must not be empty"),
        ({"other": {"batch_size": [1, 2]}}, "shallow: no such variant with ranges; there are: none"),
        ({"shallow": {"epochs": {"low": 3, "high": 3}}}, "low must be less than high"),
        ({"shallow": {"epochs": [3]}}, "epochs: must have two options or more; received [3]"),
    ],
)
def test_ranges_that_are_not_allowed_are_refused_in_one_line(
    ranges: object, problem: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "search.yaml", ranges)
    (tmp_path / "params.yaml").write_text(json.dumps(projects.small_params(shallow={})))
    error = call(tmp_path, "search", "shallow").error
    assert error
    assert error.startswith("error: search.yaml: ")
    assert problem in error
