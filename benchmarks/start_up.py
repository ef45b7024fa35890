"""What a stage costs beside its work: importing its modules and opening MLflow's store where it does."""

import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import run, summary
from pipeline.__main__ import STAGES

OPEN_THE_STORE = {"train", "evaluate", "promote", "report"}
STORE = "; import mlflow; mlflow.MlflowClient().get_experiment_by_name('none')"


def measure(folder: Path, times: int) -> dict[str, Any]:
    """Wall and CPU seconds of each stage's start, after one that is not counted."""
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(Path.cwd())}
    found = {}
    for stage, (module, _) in STAGES.items():
        command = [
            sys.executable,
            "-c",
            f"import pipeline.{module}{STORE if stage in OPEN_THE_STORE else ''}",
        ]
        seconds = [run(command, folder, environment) for _ in range(times + 1)][1:]
        found[stage] = {clock: summary([one[clock] for one in seconds]) for clock in ("wall", "cpu")}
        print(f"bench: start-up: {stage}: CPU {found[stage]['cpu']['median']:.2f} s", flush=True)
    return found


def nothing_to_do(finished: Path, trivial: Path, times: int) -> dict[str, Any]:
    """`dvc repro` in a job that is up to date and, by turns, in one of as many stages that do nothing."""
    stages = yaml.safe_load((finished / "dvc.lock").read_text())["stages"]
    trivial.mkdir()
    (trivial / "dvc.yaml").write_text(
        yaml.safe_dump(
            {"stages": {f"stage{n}": {"cmd": f"touch {n}", "outs": [str(n)]} for n in range(len(stages))}}
        )
    )
    for command in (["dvc", "init", "--no-scm", "--quiet"], ["dvc", "repro", "--quiet"]):
        run(command, trivial, {})
    found: dict[str, Any] = {"stages": len(stages)}
    rounds = [[run(["dvc", "repro"], folder, {}) for folder in (finished, trivial)] for _ in range(times + 1)]
    for number, name in enumerate(("finished", "trivial")):
        found[name] = {
            clock: summary([one[number][clock] for one in rounds[1:]]) for clock in ("wall", "cpu")
        }
    found["more"] = round(found["finished"]["wall"]["median"] - found["trivial"]["wall"]["median"], 2)
    print(f"bench: nothing to do: {found['more']} s more than trivial stages", flush=True)
    return found
