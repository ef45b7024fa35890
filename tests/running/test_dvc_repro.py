"""`dvc repro` as `make repro` runs it: interrupted whatever its stage does; blocked by another DVC."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.commands import plan
from pipeline.support.errors import PipelineError
from tests.conftest import ROOT
from tests.processes import processes, wait_for

RUN = """\
import signal, sys
from pipeline.running import dvc_repro
dvc_repro.SECONDS_TO_STOP = 2
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    sys.exit(not dvc_repro.dvc_repro())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DVC project as the working directory."""
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    return tmp_path


@pytest.mark.parametrize("deaf", ["echo", "trap '' INT TERM"], ids=["listens", "deaf"])
def test_a_stage_is_stopped_even_if_it_does_not_listen(project: Path, deaf: str) -> None:
    sleep = f"{deaf}; touch deaf.here; {sys.executable} -c 'import time; time.sleep(600)'"
    first, second = {"cmd": "touch one", "outs": ["one"]}, {"cmd": sleep, "deps": ["one"], "outs": ["two"]}
    third = {"cmd": "touch three", "outs": ["three"]}
    YAML().dump({"stages": {"first": first, "deaf": second, "third": third}}, project / "dvc.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", RUN], cwd=project, env=environment) as process:
        wait_for((project / "deaf.here").exists, process)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)  # which somebody impatient sends again
        assert process.wait(60) == 130
    assert processes(project) == []
    with Repo() as repo:  # whose lock is free
        assert set(repo.status()) == {"deaf", "third"}


def test_another_dvc_at_work_is_an_error_in_one_line(project: Path) -> None:
    command = "touch started && until [ -e go ]; do sleep .1; done && touch out"
    YAML().dump({"stages": {"one": {"cmd": command, "outs": ["out"]}}}, project / "dvc.yaml")
    with subprocess.Popen([sys.executable, "-m", "dvc", "--quiet", "repro"], cwd=project) as other:
        wait_for((project / "started").exists, other)
        with pytest.raises(PipelineError, match=r"dvc: .* is busy, it is being blocked by: \(PID") as caught:
            plan.outdated_stages()
        (project / "go").touch()
        assert other.wait(60) == 0
    assert "\n" not in str(caught.value)
    assert not plan.outdated_stages()


def log_training(experiment: str, variant: str, seconds: float | None, status: str = "FINISHED") -> None:
    client = mlflow.MlflowClient()
    run = client.create_run(experiment, tags={"variant": variant})
    if seconds is not None:
        client.log_metric(run.info.run_id, "wall_seconds", seconds)
    client.set_terminated(run.info.run_id, status)


def test_earlier_times_are_the_median_of_finished_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert plan.earlier_wall_seconds("cifar10") == {}
    experiment = mlflow.MlflowClient().create_experiment("cifar10")
    for seconds in (100, 900, 130):
        log_training(experiment, "shallow", seconds)
    log_training(experiment, "shallow", 1, status="FAILED")
    log_training(experiment, "vgg3", 40)
    log_training(experiment, "report", None)
    assert plan.earlier_wall_seconds("cifar10") == {"shallow": 130, "vgg3": 40}
