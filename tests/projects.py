"""Small projects in folders of their own, each with DVC, params.yaml and an MLflow store."""

import json
import os
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.__main__ import main
from pipeline.commands import quickstart
from pipeline.commands.job_folder import lay_out
from pipeline.running import worker
from tests.called import call
from tests.conftest import BIN, PARAMS, ROOT, Clone, git
from tests.processes import output_of

NAME = "batchnorm-0"  # the model that most tests train


def small_params(**variants: dict[str, Any]) -> dict[str, Any]:
    """The quickstart's params.yaml with only these variants of the tests', changed like this."""
    params: dict[str, Any] = yaml.safe_load(quickstart.PARAMS.read_text())
    known = yaml.safe_load(PARAMS.read_text())["variants"]
    params["variants"] = {name: known[name] | changes for name, changes in variants.items()}
    del params["finetune"]
    return params


@dataclass(frozen=True)
class Project:
    """A folder with a copy of the pipeline, and the environment of its commands."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> str:
        """The URI of its runs."""
        return self.more.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.folder / 'mlflow.db'}")

    @property
    def client(self) -> MlflowClient:
        """A client of its store."""
        return MlflowClient(self.store)

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=kept | {"PATH": path, "MLFLOW_TRACKING_URI": self.store} | self.more | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        """The output of a command; with `check`, the test fails if it fails."""
        process = self.start(*command, **environment)
        printed = output_of(process)
        if check and process.returncode:
            pytest.fail(f"{' '.join(command)} ended with {process.returncode}:\n{printed}")
        return printed

    def runs(self) -> list[Run]:
        """All its runs, the oldest first; none if it has no store yet, since a client would create one."""
        if "MLFLOW_TRACKING_URI" not in self.more and not (self.folder / "mlflow.db").is_file():
            return []
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, order_by=["attributes.start_time ASC"]))

    def steps(self, run: Run, metric: str = "val_loss") -> list[int]:
        """The steps of a run's metric, as they were logged."""
        return sorted(point.step for point in self.client.get_metric_history(run.info.run_id, metric))

    def outs(self) -> dict[str, str]:
        """The digest of every out in dvc.lock, by its path."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}

    def trained_epochs(self) -> int:
        """The number of epochs in the checkpoint of the training."""
        try:
            with np.load(self.folder / f".pipeline/checkpoints/{NAME}.npz") as arrays:
                return int(json.loads(arrays["facts"].tobytes())["epochs"])
        except FileNotFoundError:
            return 0

    def results(self) -> set[str]:
        """The variants that were trained ahead, and whose results no stage has copied yet."""
        records = (self.folder / ".pipeline/results").glob("*/training.json")
        whole = [record for record in records if not record.parent.suffix]
        return {json.loads(record.read_text())["tags"]["variant"] for record in whole}


def make(folder: Path, params: dict[str, Any], *targets: str, **more: str) -> Project:
    """Lay out a job, and run `dvc repro` with `targets` if there are any."""
    lay_out(folder, json.dumps(params))
    job = Project(folder, more)
    if targets:
        job.run("dvc", "repro", *targets)
    return job


def commit(folder: Path) -> None:
    """Make a folder a git repository with DVC, and commit all that is in it."""
    git(["init", "--quiet"], folder)
    for key in ("user.name", "user.email"):
        git(["config", key, "a@b"], folder)
    Project(folder).run("dvc", "init", "--quiet")
    git(["add", "--all"], folder)
    git(["commit", "--quiet", "--message=start"], folder)


def keep_stages(folder: Path, *names: str) -> None:
    """Keep only these stages in a folder's dvc.yaml."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    kept = {"stages": {name: stages[name] for name in names}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))


def prepared(folder: Path, params: dict[str, Any], **more: str) -> Project:
    """A job before its trainings, without DVC."""
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(json.dumps(params))
    for stage in ("fetch", "prepare", "recipes"):
        done = call(folder, stage)
        assert done.error is None, done
    return Project(folder, {"PYTHONPATH": str(ROOT)} | more)


def before_training(clone: Clone, folder: Path, params: dict[str, Any]) -> Project:
    """A job whose data the quickstart has prepared: `dvc repro` begins with `recipes`."""
    folder.mkdir()
    for name in (".dvc", "data"):
        shutil.copytree(clone.folder / "quickstart" / name, folder / name)
    lay_out(folder, json.dumps(params))
    locked = yaml.safe_load((clone.folder / "quickstart/dvc.lock").read_text())
    locked["stages"] = {name: locked["stages"][name] for name in ("fetch", "prepare")}
    (folder / "dvc.lock").write_text(yaml.safe_dump(locked, sort_keys=False))
    shutil.rmtree(folder / ".dvc/cache/runs")  # of the trainings, which would be restored
    return Project(folder)


def copied(job: Project, folder: Path, **more: str) -> Project:
    """A copy of a job in `folder`."""
    return Project(Path(shutil.copytree(job.folder, folder)), more)


def start_training(job: Project, name: str = NAME) -> BaseProcess:
    """Start `python -m pipeline train` in a fork of a process that has imported TensorFlow already.

    What it prints is in NAME.log.
    """
    worker.CONTEXT.set_forkserver_preload(["pipeline.stages.train.training", "tests.projects"])
    process = worker.CONTEXT.Process(target=_train, args=(job, name))
    process.start()
    return process


def _train(job: Project, name: str) -> None:
    os.chdir(job.folder)
    os.environ["MLFLOW_TRACKING_URI"] = job.store
    with Path(f"{name}.log").open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        main(["train", *name.split("-")])
