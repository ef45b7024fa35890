"""`dvc repro` as `make repro` runs it: interrupted whatever its stage does, killed, or blocked."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.commands import plan
from pipeline.running import dvc_repro
from tests.conftest import ROOT
from tests.processes import processes, wait_for

RUN = """\
import signal, sys
from pipeline.running import dvc_repro
dvc_repro.SECONDS_TO_STOP = 2
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    sys.exit(not dvc_repro.run())
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


@pytest.mark.parametrize("killed", ["starter", "supervisor", "dvc"])
def test_a_stage_ends_with_what_is_killed_and_the_next_run_starts_at_once(project: Path, killed: str) -> None:
    deaf = f"trap '' INT TERM; touch here; {sys.executable} -c 'import time; time.sleep(600)'; touch late"
    stages = {"deaf": {"cmd": deaf, "outs": ["one"]}, "promote": {"cmd": "touch promoted"}}
    YAML().dump({"stages": stages}, project / "dvc.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", RUN], cwd=project, env=environment) as process:
        wait_for((project / "here").exists, process)
        (supervisor,) = psutil.Process(process.pid).children()
        {"starter": process, "supervisor": supervisor, "dvc": supervisor.children()[0]}[killed].kill()
        assert process.wait(60) == (-signal.SIGKILL if killed == "starter" else 1)
        begun = time.monotonic()
        wait_for(lambda: processes(project) == [])
        assert time.monotonic() - begun < 5
    assert plan.outdated_stages() == {"deaf": False, "promote": False}
    assert not {"late", "promoted"} & {path.name for path in project.iterdir()}


def test_a_plan_waits_for_another_dvc_and_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "touch started && until [ -e go ]; do sleep .1; done && touch out"
    YAML().dump({"stages": {"one": {"cmd": command, "outs": ["out"]}}}, project / "dvc.yaml")
    with subprocess.Popen([sys.executable, "-m", "dvc", "--quiet", "repro"], cwd=project) as other:
        wait_for((project / "started").exists, other)
        threading.Timer(3, (project / "go").touch).start()
        assert plan.outdated_stages() == {}
        assert other.wait(60) == 0
    printed = capsys.readouterr().out
    assert re.match(
        r"plan: waiting for another DVC: .* is busy, it is being blocked by: \(PID \d+\)", printed
    )
    assert printed.count("\n") == 1


@pytest.mark.parametrize("left", ["cut off", "a zombie"])
def test_what_a_kill_leaves_of_the_files_in_use_is_forgotten(project: Path, left: str) -> None:
    YAML().dump({"stages": {"one": {"cmd": "touch out", "outs": ["out"]}}}, project / "dvc.yaml")
    with subprocess.Popen(["true"]) as zombie:
        wait_for(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        used = json.dumps({"write": {str(project / "out"): {"pid": zombie.pid, "cmd": "dvc repro"}}})
        dvc_repro.IN_USE.write_text(used if left == "a zombie" else used[:20])
        assert plan.outdated_stages() == {"one": False}


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
