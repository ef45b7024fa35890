"""A small project in a folder of its own: DVC, params.yaml, an MLflow store; its commands and processes."""

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.__main__ import main
from pipeline.commands import quickstart
from pipeline.commands.quickstart import lay_out
from pipeline.core import hardware
from pipeline.core.backend import keras
from pipeline.running import worker
from pipeline.stages.promote import packaging, serving_check
from pipeline.stages.train import training
from tests.conftest import BIN, ROOT, Clone

NAME = "batchnorm-0"  # the model that most tests train


def small_params(**variants: dict[str, Any]) -> dict[str, Any]:
    """The quickstart's params.yaml with only these variants of the repository's, changed like this."""
    params: dict[str, Any] = yaml.safe_load(quickstart.PARAMS.read_text())
    known = yaml.safe_load((ROOT / "params.yaml").read_text())["variants"]
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


def make(folder: Path, params: dict[str, Any], *targets: str, **more: str) -> Project:
    """Lay out a job, and run `dvc repro` with `targets` if there are any."""
    lay_out(folder, yaml.safe_dump(params, sort_keys=False))
    job = Project(folder, more)
    if targets:
        job.run("dvc", "repro", *targets)
    return job


def prepared(folder: Path, params: dict[str, Any], **more: str) -> Project:
    """A job before its trainings, without DVC."""
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for stage in ("fetch", "prepare", "recipes"):
        assert call(folder, stage).error is None
    return Project(folder, {"PYTHONPATH": str(ROOT)} | more)


def before_training(clone: Clone, folder: Path, params: dict[str, Any]) -> Project:
    """A job whose data the quickstart has prepared: `dvc repro` begins with `recipes`."""
    folder.mkdir()
    for name in (".dvc", "data"):
        shutil.copytree(clone.folder / "quickstart" / name, folder / name)
    lay_out(folder, yaml.safe_dump(params, sort_keys=False))
    locked = yaml.safe_load((clone.folder / "quickstart/dvc.lock").read_text())
    locked["stages"] = {name: locked["stages"][name] for name in ("fetch", "prepare")}
    (folder / "dvc.lock").write_text(yaml.safe_dump(locked, sort_keys=False))
    shutil.rmtree(folder / ".dvc/cache/runs")  # of the trainings, which would be restored
    return Project(folder)


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


def copied(job: Project, folder: Path, **more: str) -> Project:
    """A copy of a job in `folder`."""
    return Project(Path(shutil.copytree(job.folder, folder)), more)


@dataclass(frozen=True)
class Called:
    """What a command printed, and its exit status or error; None if it ended well."""

    out: str
    err: str
    error: Any

    @property
    def refusal(self) -> str:
        """The one line that it was refused with, without "error: "."""
        assert str(self.error).startswith("error: "), self
        assert "\n" not in self.error
        return str(self.error.removeprefix("error: "))


def seed_only(seed: int, *_: Any) -> None:
    """`make_deterministic` in a process in which TensorFlow runs already, so its threads stay."""
    keras.utils.set_random_seed(seed)


def call(folder: Path, name: str, *arguments: str, **environment: str) -> Called:
    """Call the main function of `python -m pipeline NAME` in this process, in a folder with its own store.

    Of MLflow's settings it has only those of the `environment`.
    """
    ours = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"} | environment
    error = None
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
            patch.delenv(key)
        for key, value in ours.items():
            patch.setenv(key, value)
        if name in {"train", "predict"}:
            for module in (training, hardware):
                patch.setattr(module, "make_deterministic", seed_only)
        patch.chdir(folder)
        try:
            main([name, *arguments])
        except SystemExit as ended:
            error = ended.code or None
    return Called(out.getvalue(), err.getvalue(), error)


@contextmanager
def this_process() -> Iterator[serving_check.Answers]:
    """As `trial.new_process`, for tests in which the process does not matter."""

    def answers(uri: str, images: np.ndarray) -> np.ndarray:
        rows: Any = pd.concat([packaging.example_request(image) for image in images])
        found: Any = mlflow.pyfunc.load_model(uri).predict(rows)
        return np.array([list(answer["probabilities"].values()) for answer in found])

    yield answers


def processes(folder: Path, module: str = "") -> list[psutil.Process]:
    """The processes that work in a folder, except this one; with `module`, of `python -m pipeline MODULE`."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and process.pid != os.getpid()
        if not module or {"-m", "pipeline", module} <= {*(process.info["cmdline"] or [])}
    ]


def results_of(job: Project) -> set[str]:
    """The variants that have a result which no stage has taken up."""
    records = (job.folder / ".pipeline/results").glob("*/training.json")
    whole = [record for record in records if not record.parent.suffix]
    return {json.loads(record.read_text())["tags"]["variant"] for record in whole}


def trained_epochs(job: Project) -> int:
    """The number of epochs in the checkpoint of the training."""
    try:
        with (job.folder / f".pipeline/checkpoints/{NAME}.npz").open("rb") as file, np.load(file) as arrays:
            return int(json.loads(arrays["facts"].tobytes())["epochs"])
    except FileNotFoundError:
        return 0


def output_of(process: "subprocess.Popen[str]") -> str:
    """What a started process has printed when it ends. If pytest's timeout is over, its group is killed."""
    try:
        return process.communicate(timeout=86_400)[0]  # with a timeout, the call below returns all output
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate(timeout=60)[0])
        raise


def wait_for(condition: Any, process: "subprocess.Popen[str] | None" = None) -> Any:
    """The value of `condition` once it is true; a `process` that ends before fails the test."""
    while True:
        ended = process and process.poll() is not None
        if found := condition():
            return found
        if process and ended:
            pytest.fail(f"ended with {process.returncode}:\n{process.communicate()[0]}")
        time.sleep(0.05)


def kill(job: Project, dvc: "subprocess.Popen[str]", what: str, module: str = "train") -> None:
    """Send SIGKILL to the stage's processes, to `dvc` only, or to the whole group."""
    if what == "group":
        os.killpg(dvc.pid, signal.SIGKILL)
    elif what == "dvc":
        dvc.kill()
    else:
        for process in processes(job.folder, module):
            with suppress(psutil.NoSuchProcess):
                if Path(process.exe()).name.startswith("python"):
                    process.kill()
