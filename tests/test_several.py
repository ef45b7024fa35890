"""Several at once: trainings that share a store, and promotions on one machine and on two."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipeline.champion import registry
from pipeline.champion.repair import repair
from tests import jobs
from tests.conftest import ROOT
from tests.servers import free_port, mlflow_server, postgres
from tests.test_registry import NAME, aliases, new_candidate, promote, version, versions

pytestmark = pytest.mark.timeout(900)

SEEDS = range(8)
EPOCHS = 4


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.faults)])
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that does not exist yet, or a server on a Postgres."""
    folder = tmp_path_factory.mktemp("shared")
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/mlflow.db"
        return
    with (
        postgres(tmp_path_factory.mktemp("postgres")) as database,
        mlflow_server(folder, free_port(), database) as address,
    ):
        yield address


@pytest.mark.faults
def test_eight_trainings_at_once_all_have_whole_runs(shared_store: str, tmp_path: Path) -> None:
    params = jobs.small_params(batchnorm={"epochs": EPOCHS, "training_images": 400})
    job = jobs.make(tmp_path / "job", params, "prepare", "recipes", MLFLOW_TRACKING_URI=shared_store)
    trainings = [job.start("python", "-m", "pipeline.train", "batchnorm", str(seed)) for seed in SEEDS]
    for training in trainings:
        printed, _ = training.communicate(timeout=600)
        assert training.returncode == 0, printed
        assert "locked" not in printed
        assert "not complete" not in printed
    runs = job.runs()
    assert sorted(run.info.run_name or "" for run in runs) == [f"batchnorm-{seed}" for seed in SEEDS]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert job.steps(run) == list(range(EPOCHS))
        assert "model_digest" in run.data.tags
    models = job.client.search_logged_models([runs[0].info.experiment_id])
    assert [model.status for model in models] == ["READY"] * len(SEEDS)


PROMOTE = """
import sys
from pathlib import Path
from tests.test_registry import new_candidate, promote

candidate = new_candidate(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
print(promote(candidate))
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a champion, version 1."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.MlflowClient().create_experiment(NAME, artifact_location=str(tmp_path / "artifacts"))
    promote(new_candidate(tmp_path, 1, 0.5))
    return tmp_path


def promoted_at_once(store: Path, *candidates: tuple[int, float], machines: int) -> list[str]:
    """What promotions of (seed, accuracy) print that start at once; each machine has its own locks."""
    processes = []
    for number, (seed, accuracy) in enumerate(candidates):
        locks = store / f"machine{number % machines}"
        locks.mkdir(exist_ok=True)
        folder = store / f"process{number}"
        folder.mkdir(exist_ok=True)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROMOTE, str(folder), str(seed), str(accuracy)],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(locks)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return printed


@pytest.mark.faults
def test_two_promotions_at_once_on_one_machine_end_with_the_better(store: Path) -> None:
    promoted_at_once(store, (2, 0.6), (3, 0.7), machines=1)
    champion = version(int(aliases()["champion"]))
    assert champion.tags["validation_accuracy"] == "0.700000"
    assert repair(NAME) == []


@pytest.mark.faults
def test_two_promotions_of_one_model_on_one_machine_make_one_version(store: Path) -> None:
    printed = promoted_at_once(store, (2, 0.6), (2, 0.6), machines=1)
    assert sorted("is champion" in line for line in printed) == [False, True]
    assert len(versions()) == 2
    assert aliases() == {"champion": "2", "previous": "1"}


@pytest.mark.faults
def test_two_promotions_on_two_machines_are_put_in_order_by_the_next_sync(store: Path) -> None:
    promoted_at_once(store, (2, 0.7), (3, 0.6), machines=2)
    one, other = version(2), version(3)
    assert one.tags["replaces"] == other.tags["replaces"] == version(1).tags["promotion_id"]
    better, worse = sorted((one, other), key=lambda v: v.tags["validation_accuracy"], reverse=True)
    for last in (worse, better):  # whichever machine was the last
        mlflow.MlflowClient().set_registered_model_alias(NAME, registry.CHAMPION, last.version)
        mlflow.MlflowClient().set_model_version_tag(NAME, better.version, "replaces", one.tags["replaces"])
        [line] = repair(NAME)
        assert line.endswith(f"were promoted at once: version {better.version} is champion")
        assert aliases() == {"champion": str(better.version), "previous": str(worse.version)}
        assert repair(NAME) == []
    registry.rollback(NAME)
    assert repair(NAME) == []
    assert aliases() == {"champion": str(worse.version), "previous": str(better.version)}


@pytest.mark.faults
def test_one_model_promoted_on_two_machines_is_one_version_after_the_next_sync(store: Path) -> None:
    promoted_at_once(store, (2, 0.6), (2, 0.6), machines=2)
    assert len(versions()) == 3
    champion = aliases()["champion"]
    done = repair(NAME)
    assert any("deleted version" in line for line in done)
    assert len(versions()) == 2
    assert aliases() == {"champion": champion, "previous": "1"}
    assert repair(NAME) == []
