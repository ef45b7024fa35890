"""The plan of a long run: stages, times and disk, from a real DVC project and a real MLflow store."""

import shutil
from collections import namedtuple
from pathlib import Path

import mlflow
import pytest
from dvc.repo import Repo

from pipeline import plan
from pipeline.shared.errors import PipelineError

STAGES = """\
stages:
  third: {cmd: cat two.txt > three.txt, deps: [two.txt], outs: [three.txt]}
  second: {cmd: cat one.txt beside.txt > two.txt, deps: [one.txt, beside.txt], outs: [two.txt]}
  first: {cmd: cp source.txt one.txt, deps: [source.txt], outs: [one.txt]}
  alone: {cmd: cp other.txt lonely.txt, deps: [other.txt], outs: [lonely.txt]}
"""
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "0 min"),
        (0, "0 min"),
        (29, "0 min"),
        (31, "1 min"),
        (59 * 60, "59 min"),
        (3599, "1 h 00 min"),
        (3600, "1 h 00 min"),
        (5 * 3600 + 7 * 60, "5 h 07 min"),
        (30 * 3600, "30 h 00 min"),
    ],
)
def test_seconds_are_told_in_hours_and_minutes(seconds: float | None, words: str) -> None:
    assert plan.in_words(seconds) == words


def test_disk_that_is_too_small_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * plan.GIB, 99.5 * plan.GIB, plan.GIB / 2))
    with pytest.raises(PipelineError, match=r"0\.5 GiB are free, this run needs 1\.0: ") as caught:
        plan.check_disk(["fetch", "prepare", "report"])
    assert "\n" not in str(caught.value)


def test_disk_that_suffices_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * plan.GIB, plan.GIB, plan.GIB))
    plan.check_disk(["train@shallow-0", "finetune@shallow_subset-0", "evaluate@shallow-0"])
    assert capsys.readouterr().out == "plan: needs 0.2 GiB of disk, 1.0 are free\n"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


def log_training(experiment: str, variant: str, seconds: float | None, status: str = "FINISHED") -> None:
    client = mlflow.MlflowClient()
    run = client.create_run(experiment, tags={"variant": variant})
    if seconds is not None:
        client.log_metric(run.info.run_id, "wall_seconds", seconds)
    client.set_terminated(run.info.run_id, status)


@pytest.mark.usefixtures("store")
def test_earlier_times_are_the_median_of_finished_trainings() -> None:
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
    stages = plan.stages_to_run()
    assert stages == dict.fromkeys(["alone", "first", "second", "third"], False)
    assert [stage for stage in stages if stage != "alone"] == ["first", "second", "third"]
    reproduce()
    assert not plan.stages_to_run()
    (project / "source.txt").touch()
    assert not plan.stages_to_run()


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("source.txt", ["first", "second", "third"]),
        ("beside.txt", ["second", "third"]),
        ("other.txt", ["alone"]),
    ],
)
def test_changed_file_runs_its_stage_and_what_follows_in_order(
    project: Path, changed: str, stages: list[str]
) -> None:
    reproduce()
    (project / changed).write_text("changed")
    assert list(plan.stages_to_run()) == stages
    reproduce()
    assert not plan.stages_to_run()


def test_lost_output_is_restored_from_the_cache(project: Path) -> None:
    reproduce()
    (project / "two.txt").unlink()
    stages = plan.stages_to_run()
    assert list(stages) == ["second", "third"]
    assert stages["second"] is True


def test_a_value_that_is_changed_back_is_restored_from_the_cache(project: Path) -> None:
    for text in ("one", "two"):
        (project / "other.txt").write_text(text)
        assert plan.stages_to_run()["alone"] is False
        reproduce()
    (project / "other.txt").write_text("one")
    assert plan.stages_to_run() == {"alone": True}
