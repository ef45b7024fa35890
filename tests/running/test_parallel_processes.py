"""Promotions at once, on one machine and on two. `test_tracking_server` has trainings at once."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

import mlflow
import pytest

from pipeline.running import worker
from pipeline.stages.promote import serving_check
from tests.called import this_process
from tests.stages.promote.test_registry import NAME, aliases, new_candidate, promote, version, versions

pytestmark = pytest.mark.faults


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a champion, version 1."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(serving_check, "new_process", this_process)
    mlflow.MlflowClient().create_experiment(NAME, artifact_location=str(tmp_path / "artifacts"))
    promote(new_candidate(tmp_path, 1, 0.5))
    return tmp_path


def promoted_at_once(store: Path, *candidates: tuple[int, float], machines: int) -> list[str]:
    """What promotions of (seed, accuracy) say that start at once; each machine has its own locks."""
    started = []
    for number, (seed, accuracy) in enumerate(candidates):
        locks, (ours, theirs) = store / f"machine{number % machines}", worker.CONTEXT.Pipe()
        locks.mkdir(exist_ok=True)
        variables = {"XDG_CACHE_HOME": str(locks), "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
        arguments = (theirs, variables, store / f"process{number}", seed, accuracy)
        worker.CONTEXT.Process(target=promote_when_told, args=arguments, daemon=True).start()
        theirs.close()  # or `recv` would wait for ever if the process dies
        started.append(ours)
    assert [process.recv() for process in started] == ["ready"] * len(started)
    for process in started:
        process.send("go")
    return [process.recv() for process in started]


def promote_when_told(
    connection: Connection, variables: dict[str, str], folder: Path, seed: int, accuracy: float
) -> None:
    os.environ |= variables
    serving_check.new_process = this_process
    candidate = new_candidate(folder, seed, accuracy)
    connection.send("ready")
    connection.recv()
    connection.send(promote(candidate))


def test_two_promotions_at_once_on_one_machine_end_with_the_better(store: Path) -> None:
    promoted_at_once(store, (2, 0.6), (3, 0.7), machines=1)
    assert version(int(aliases()["champion"])).tags["validation_accuracy"] == "0.700000"


def test_two_promotions_of_one_model_on_one_machine_make_one_version(store: Path) -> None:
    printed = promoted_at_once(store, (2, 0.6), (2, 0.6), machines=1)
    assert sorted("is champion" in line for line in printed) == [False, True]
    assert len(versions()) == 2
    assert aliases() == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize("seeds", [(2, 3), (2, 2)])
def test_of_two_machines_the_last_wins_until_a_better_model_comes(
    store: Path, seeds: tuple[int, int]
) -> None:
    printed = promoted_at_once(store, (seeds[0], 0.7), (seeds[1], 0.6), machines=2)
    last = aliases()["champion"]
    assert all("is champion" in line for line in printed)
    assert len(versions()) == 3
    assert aliases()["previous"] in {"1", "2", "3"} - {last}  # the other one may have been champion before
    assert "is champion" in promote(new_candidate(store, 4, 0.8))
    assert aliases() == {"champion": "4", "previous": last}
