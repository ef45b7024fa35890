"""What a stage costs beside its work: importing its modules and opening MLflow's store where it does."""

import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import run, summary

STAGES = {
    "fetch": False,
    "prepare": False,
    "recipes": False,
    "train": True,
    "predict": False,
    "evaluate": True,
    "promote": True,
    "report": True,
}  # whether it opens the store
STORE = "; import mlflow; mlflow.MlflowClient().get_experiment_by_name('none')"


def measure(folder: Path, times: int) -> dict[str, Any]:
    """Wall and CPU seconds of each stage's start, after one that is not counted."""
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(Path.cwd())}
    found = {}
    for stage, opens in STAGES.items():
        command = [sys.executable, "-c", f"import pipeline.{stage}{STORE if opens else ''}"]
        seconds = [run(command, folder, environment) for _ in range(times + 1)][1:]
        found[stage] = {clock: summary([one[clock] for one in seconds]) for clock in ("wall", "cpu")}
        print(f"bench: start-up: {stage}: CPU {found[stage]['cpu']['median']:.2f} s", flush=True)
    return found


def nothing_to_do(folder: Path, times: int) -> dict[str, Any]:
    """`dvc repro` and `dvc status` in a job that is up to date, by turns."""
    rounds = [
        {verb: run(["dvc", verb], folder, {}) for verb in ("status", "repro")} for _ in range(times + 1)
    ][1:]
    found: dict[str, Any] = {
        verb: {clock: summary([one[verb][clock] for one in rounds]) for clock in ("wall", "cpu")}
        for verb in ("status", "repro")
    }
    found["repro_to_status"] = round(found["repro"]["wall"]["median"] / found["status"]["wall"]["median"], 2)
    print(f"bench: nothing to do: `dvc repro` takes {found['repro_to_status']} x `dvc status`", flush=True)
    return found
