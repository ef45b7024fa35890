"""The plan of a long run: its stages and their times, from a real DVC project and a real MLflow store."""

import os
from pathlib import Path

import mlflow
import pytest
from dvc.repo import Repo

from pipeline import plan
from pipeline.shared.errors import PipelineError
from tests.conftest import ROOT

STAGES = """\
stages:
  third: {cmd: cat two.txt > three.txt, deps: [two.txt], outs: [three.txt]}
  second: {cmd: cat one.txt beside.txt > two.txt, deps: [one.txt, beside.txt], outs: [two.txt]}
  first: {cmd: cp source.txt one.txt, deps: [source.txt], outs: [one.txt]}
  alone: {cmd: cp other.txt lonely.txt, deps: [other.txt], outs: [lonely.txt]}
"""


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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project of three stages in a row, and one beside them, in which nothing has run."""
    monkeypatch.chdir(tmp_path)
    for name in ("source", "beside", "other"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "dvc.yaml").write_text(STAGES)
    Repo.init(no_scm=True).close()
    return tmp_path


def reproduce() -> None:
    with Repo() as repo:
        repo.reproduce()


def test_everything_runs_at_first_and_nothing_afterwards(project: Path) -> None:
    stages = plan.outdated_stages()
    assert stages == dict.fromkeys(["alone", "first", "second", "third"], False)
    assert [stage for stage in stages if stage != "alone"] == ["first", "second", "third"]
    reproduce()
    assert not plan.outdated_stages()
    (project / "source.txt").touch()
    assert not plan.outdated_stages()


def test_changed_file_runs_its_stage_and_what_follows_in_order(project: Path) -> None:
    for changed, stages in {"other": ["alone"], "beside": ["second", "third"]}.items():
        reproduce()
        (project / f"{changed}.txt").write_text("changed")
        assert list(plan.outdated_stages()) == stages


def test_what_dvc_has_is_restored_from_the_cache(project: Path) -> None:
    for text in ("one", "two"):
        (project / "other.txt").write_text(text)
        assert plan.outdated_stages()["alone"] is False
        reproduce()
    (project / "other.txt").write_text("one")
    assert plan.outdated_stages() == {"alone": True}
    (project / "two.txt").unlink()
    stages = plan.outdated_stages()
    assert set(stages) == {"alone", "second", "third"}
    assert stages["second"] is True


def test_a_pipe_among_the_images_is_refused_before_dvc_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/own-images.yaml").read_text()
    Path("params.yaml").write_text(text.replace("photos/", f"{tmp_path}/"))
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    os.mkfifo(tmp_path / "test/pipe.png")
    with pytest.raises(PipelineError, match=r"neither files nor folders: .*/test/pipe\.png"):
        plan.checked_params()
