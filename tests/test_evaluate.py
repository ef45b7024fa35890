"""The evaluation stage: the files and runs of all models, or of one."""

import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor
from mlflow.entities import Run

from pipeline import evaluate
from pipeline.records import tracking
from pipeline.shared.arrays import write_arrays, write_json
from pipeline.shared.paths import PREPARED
from pipeline.shared.trained import INDEX, Trained

GOOD, LOST = Trained("good", 0), Trained("lost", 0)
DIVERGED = {"status": "diverged", "reason": "its loss is nan in epoch 1"}
TABLES = {"confusion.csv", "most_confused.csv", "per_class.csv", "roc.csv", "classification_report.txt"}
FIGURES = {"confusion.png", "curves.png", "examples.png", "roc.png"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trained model of two classes, which has a run, and one that diverged."""
    get_reusable_executor().shutdown()  # its processes are in the folder of an earlier test
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    random = np.random.default_rng(0)
    labels = np.arange(20) % 2
    for part in ("validation", "test"):
        images = random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        write_arrays(PREPARED / part, {"images": images, "labels": labels})
    write_arrays(
        PREPARED / "split", {}, name="pets", classes=["cat", "dog"], counts={"validation": 20, "test": 20}
    )
    right = np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1
    for trained, tags in ((GOOD, {"status": "trained"}), (LOST, DIVERGED)):
        write_arrays(trained.predictions, {"validation": right, "test": right[::-1]})
        trained.folder.mkdir(parents=True)
        trained.model.write_text(trained.name)
        names = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
        pd.DataFrame({name: [1] for name in names}).to_csv(trained.history, index=False)
        record = {"tags": tags, "params": {}, "metrics": {"kept_val_accuracy": 0.5, "parameters": 7}}
        write_json(trained.folder / "training.json", record)
    write_json(INDEX, [{"variant": one.variant, "seed": one.seed} for one in (GOOD, LOST)])
    with tracking.training_run("pets", GOOD.name, GOOD.tags()):
        pass
    return tmp_path


def run_stage(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    evaluate.main()


def run_of(trained: Trained) -> Run:
    found = tracking.find_run("pets", trained.tags())
    assert found is not None
    return found


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("project")
def test_all_models_are_scored_and_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metrics").mkdir()
    Path("metrics/former-0.json").touch()
    run_stage(monkeypatch)
    assert files(Path("metrics")) == {"good-0.json", "lost-0.json"}
    assert GOOD.metrics()["validation"]["accuracy"] == 1
    assert GOOD.metrics()["test"]["accuracy"] == 0
    assert files(GOOD.evaluation) == files(LOST.evaluation) == TABLES | FIGURES
    assert files(Path("evaluation")) == {"good-0", "lost-0", "curves.csv", "roc.csv", "confusion.csv"}
    run = run_of(GOOD)
    assert run.data.metrics["validation/accuracy"] == 1
    artifacts = mlflow.MlflowClient().list_artifacts(run.info.run_id, "evaluation")
    assert {f"evaluation/{name}" for name in TABLES | FIGURES} <= {artifact.path for artifact in artifacts}

    logged: list[Any] = []
    monkeypatch.setattr(mlflow, "log_metrics", lambda *arguments, **_: logged.append(arguments))
    run_stage(monkeypatch)
    assert not logged
    assert run_of(GOOD).data.tags == run.data.tags


@pytest.mark.usefixtures("project")
def test_a_diverged_model_has_a_reason_and_empty_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(monkeypatch)
    assert LOST.metrics() == DIVERGED
    assert LOST.divergence() == DIVERGED["reason"]
    for table in ("per_class", "confusion"):
        header, *rows = (GOOD.evaluation / f"{table}.csv").read_text().splitlines()
        assert rows
        assert (LOST.evaluation / f"{table}.csv").read_text().splitlines() == [header]


@pytest.mark.usefixtures("project")
def test_one_model_is_scored_beside_the_others_files(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metrics").mkdir()
    Path("metrics/other-0.json").touch()
    shutil.rmtree(LOST.predictions)
    run_stage(monkeypatch, "good", "0")
    assert files(Path("metrics")) == {"good-0.json", "other-0.json"}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: predictions/lost-0: missing: run `dvc repro predict@lost-0`, "),
        (["bad", "0"], "error: VARIANT SEED: allowed: good 0, lost 0; received bad 0"),
        (["good"], "error: VARIANT SEED: allowed: good 0, lost 0; received good None"),
    ],
)
def test_a_missing_model_is_refused(arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(LOST.predictions)
    with pytest.raises(SystemExit) as ended:
        run_stage(monkeypatch, *arguments)
    assert str(ended.value.code).startswith(line)
    assert not Path("metrics").exists()
