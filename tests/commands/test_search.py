"""`make search`: trials as runs under one parent, resumed after a kill, and the best one as a block."""

import os
import shlex
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from mlflow.entities import Run

from pipeline.core.arrays import write_json
from pipeline.params import Params
from tests import projects
from tests.conftest import Clone
from tests.projects import Project, wait_for
from tests.ray_nodes import Nodes
from tests.servers import free_port, mlflow_server

pytestmark = pytest.mark.system  # Ray, which `make cluster` installs

RANGES = {
    "shallow": {
        "optimizer.learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
        "batch_size": [16, 32, 64],
        "epochs": [6, 9],
        "label_smoothing": {"low": 0.0, "high": 0.3},
    }
}
SEARCH = ("python", "-m", "pipeline", "search", "shallow", "--trials=6")


@pytest.fixture
def job(clone: Clone, tmp_path: Path) -> Project:
    """A job before its trainings."""
    made = projects.before_training(clone, tmp_path / "job", projects.small_params(shallow={"epochs": 9}))
    (made.folder / "search.yaml").write_text(yaml.safe_dump(RANGES))
    return made


def searches(job: Project) -> tuple[Run, list[Run]]:
    """The run of the only search, and those of its trials, the oldest first."""
    (parent,) = [run for run in job.runs() if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in job.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, trials


def saved(job: Project) -> int:
    """How many ended trials are in the state that Ray saved, half a second ago: it saves several files."""
    states = [*job.folder.glob(".pipeline/**/experiment_state-*.json")]
    if not states or not time.time() - max(state.stat().st_mtime for state in states) > 0.5:
        return 0
    return max(state.read_text().count("TERMINATED") for state in states)


def test_a_killed_search_goes_on_elsewhere_and_ends_with_a_block_that_can_be_pasted(
    job: Project, nodes: Nodes
) -> None:
    """First on this machine, then on two nodes."""
    process = job.start(*SEARCH)
    wait_for(lambda: "FINISHED" in {run.info.status for run in job.runs()}, process=process)
    finished = [run for run in job.runs() if run.info.status == "FINISHED"]
    wait_for(lambda: saved(job) >= len(finished), process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    nodes.add(num_cpus=1)
    nodes.add(num_cpus=1)
    printed = job.run(*SEARCH, RAY_ADDRESS=nodes.address)

    parent, trials = searches(job)
    assert parent.info.status == "FINISHED"
    assert len([run for run in trials if run.info.status == "FINISHED"]) == 6
    assert {run.info.status for run in trials} <= {"FINISHED", "KILLED"}
    after = {run.info.run_id: run.data.metrics for run in trials}
    assert [after[run.info.run_id] for run in finished] == [run.data.metrics for run in finished]
    table = pd.read_csv(job.folder / "search/shallow/trials.csv")
    present = table[(table["optimizer.learning_rate"] == 0.001) & (table["batch_size"] == 32)]
    assert len(table) == 6
    assert len(present) == 1

    best = table.sort_values("kept").dropna(subset="kept").iloc[-1]
    assert f"validation accuracy {best['kept']:.4f}" in printed
    assert parent.data.metrics["validation/accuracy"] == best["kept"]
    assert parent.data.metrics["cpu_seconds"] == pytest.approx(table["cpu_seconds"].sum())
    original = job.folder / "params.yaml"
    pasted, overridden = job.folder / "pasted.yaml", job.folder / "overridden.yaml"
    params = yaml.safe_load(original.read_text())
    params["variants"] |= yaml.safe_load((job.folder / "search/shallow/best.yaml").read_text())
    pasted.write_text(yaml.safe_dump(params))
    block = Params.read(pasted).variants["shallow"]
    assert block.optimizer.learning_rate == pytest.approx(best["optimizer.learning_rate"])
    assert block.batch_size == best["batch_size"]
    assert block.epochs == best["epochs"]
    shutil.copy(original, overridden)
    words = shlex.split(printed.splitlines()[-1].partition("or: dvc exp run")[2])
    apply_overrides(overridden, [word for word in words if word != "-S"])
    assert Params.read(overridden).variants["shallow"] == block
    assert {path.name for path in (job.folder / "search/shallow").iterdir()} >= {"history.png", "best.yaml"}


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
    printed = projects.output_of(process)
    assert process.returncode == 1
    assert "the trials are logged when the search ends (MLflow: " in printed
    assert "the same command completes it" in printed
    assert "Traceback" not in printed
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db", port):
        printed = job.run(*SEARCH)
        parent, trials = searches(job)
        table = pd.read_csv(job.folder / "search/shallow/trials.csv")
        assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
        assert sorted(len(job.steps(run, "val_accuracy")) for run in trials) == sorted(
            table["trained_epochs"]
        )
    assert "/runs/" not in printed.partition("validation accuracy")[0]  # no link for each trial


def test_trials_are_compared_after_the_last_epoch_of_all_that_reported() -> None:
    nothing = SimpleNamespace(metrics={"trial_id": "0"}, metrics_dataframe=pd.DataFrame(), config={})
    again = pd.DataFrame(
        {
            "training_iteration": [1, 2, 3, 1, 2],
            "accuracy": [0.1, 0.2, 0.9, 0.25, 0.3],
            "timestamp": [1, 2, 3, 4, 5],
        }
    )
    last = {"trial_id": "1", "training_iteration": 2, "accuracy": 0.3, "cpu_seconds": 1.0}
    stopped = SimpleNamespace(metrics=last, metrics_dataframe=again, config={"epochs": 2})
    frame = pd.DataFrame({"training_iteration": [1, 2], "accuracy": [0.4, 0.5], "timestamp": [6, 7]})
    kept = last | {"trial_id": "2", "accuracy": 0.5, "kept": 0.5}  # reported after its only epoch
    finished = SimpleNamespace(metrics=kept, metrics_dataframe=frame, config={"epochs": 1})
    from pipeline.commands.search.findings import in_order  # Ray

    [row] = in_order([nothing, stopped]).to_dict("records")
    assert (row["early"], row["trained_epochs"]) == (0.3, 2)
    rows = in_order([nothing, stopped, finished])
    assert rows[["early", "trained_epochs"]].to_numpy().tolist() == [[0.25, 2], [0.4, 1]]


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ({"shallow": {"batch_size": [0, 32]}}, "shallow: batch_size: must be greater than 0; received 0"),
        ({"shallow": {"epoch": [1, 2]}}, "shallow: epoch: unknown key"),
        ({"shallow": {"epochs": {"lo": 3}}}, "shallow.epochs.lo: unknown key; allowed: low, high, log"),
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
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(projects.small_params(shallow={})))
    error = projects.call(tmp_path, "search", "shallow").error
    assert error
    assert error.startswith("error: search.yaml: ")
    assert problem in error
