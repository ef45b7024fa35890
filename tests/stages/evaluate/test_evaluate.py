"""The evaluation stage: the files and runs of all models, or of one; scores that were edited afterwards."""

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor
from mlflow.entities import Run

from pipeline.__main__ import main
from pipeline.core.arrays import read_arrays, write_arrays, write_json
from pipeline.shared import metrics
from pipeline.shared.checked_scores import checked_scores
from pipeline.shared.stored_probabilities import read_probabilities
from pipeline.stages.evaluate import stage as evaluate
from pipeline.support import mlflow_runs
from pipeline.support.model_files import INDEX, ModelFiles
from pipeline.support.paths import PREPARED
from tests.conftest import ROOT, refusal

GOOD, LOST = ModelFiles("good", 0), ModelFiles("lost", 0)
CLASSES = ["$5_to_$10", "NA"]
DIVERGED = {"status": "diverged", "reason": "its loss is nan in epoch 1"}
TABLES = {
    "confusion.csv",
    "coverage.csv",
    "misclassified.csv",
    "most_confused.csv",
    "per_class.csv",
    "reliability.csv",
    "roc.csv",
    "temperature.csv",
    "classification_report.txt",
}
FIGURES = {"confusion.png", "coverage.png", "curves.png", "examples.png", "reliability.png", "roc.png"}
COMPARED = ("curves", "roc", "confusion")  # of all models


def predict(files: ModelFiles, probabilities: dict[str, np.ndarray]) -> None:
    """Store these as a model's probabilities."""
    write_arrays(files.predictions, probabilities, model_digest=files.tags()["model_digest"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model of two classes, which has a run, and one that diverged."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        shutil.copy(ROOT / "params.yaml", folder)
        random, labels = np.random.default_rng(0), np.arange(20) % 2
        for part in ("validation", "test"):
            images = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
            write_arrays(PREPARED / part, {"images": images, "labels": labels})
        paths = {part: np.array([f"{part}/{n}.jpg" for n in range(20)]) for part in ("validation", "test")}
        write_arrays(PREPARED / "names", paths)
        counts = {"validation": 20, "test": 20}
        facts = {"name": "pets", "classes": CLASSES, "counts": counts, "split_digest": "split"}
        write_arrays(PREPARED / "split", {}, **facts)
        right = np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1
        for trained, tags in ((GOOD, {"status": "trained"}), (LOST, DIVERGED)):
            trained.folder.mkdir(parents=True)
            trained.model.write_text(trained.name)
            predict(trained, {"validation": right, "test": right[::-1]})
            names = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
            pd.DataFrame({name: [1] for name in names}).to_csv(trained.history, index=False)
            results = {"validation/accuracy": 0.5, "parameters": 7}
            write_json(trained.folder / "training.json", {"tags": tags, "params": {}, "metrics": results})
        write_json(INDEX, [{"variant": one.variant, "seed": one.seed} for one in (GOOD, LOST)])
        with mlflow_runs.training_run("pets", GOOD.name, GOOD.tags()):
            pass
    return folder


@pytest.fixture(autouse=True)
def project(made: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the folder; the store is that of the module."""
    shutil.copytree(made, workplace, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made / 'mlflow.db'}")


def run_stage(*arguments: str) -> None:
    main(["evaluate", *arguments])


def run_of_good() -> Run:
    found = mlflow_runs.find_run("pets", GOOD.tags())
    assert found is not None
    return found


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def table(title: str) -> pd.DataFrame:
    return pd.read_csv(Path("evaluation") / f"{title}.csv", keep_default_na=False)


def test_all_models_are_scored_and_logged_once() -> None:
    Path("metrics").mkdir()
    Path("metrics/former-0.json").touch()
    get_reusable_executor().shutdown()  # its processes may be in another folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "MODELS_PER_PROCESS", 1)
        run_stage()
    assert files(Path("metrics")) == {"good-0.json", "lost-0.json"}
    assert GOOD.metrics()["validation"]["accuracy"] == 1
    assert GOOD.metrics()["test"]["accuracy"] == 0
    assert files(GOOD.evaluation) == TABLES | FIGURES
    mistakes = table("good-0/misclassified")
    assert sorted(mistakes["image"]) == sorted(f"test/{number}.jpg" for number in range(20))
    columns = ["part", "label", "predicted", "model"]
    assert mistakes.loc[mistakes["image"] == "test/3.jpg", columns].to_numpy().tolist() == [
        ["test", "NA", "$5_to_$10", "good-0"]
    ]
    assert files(LOST.evaluation) == {"curves.png"}
    compared = {f"{title}.csv" for title in COMPARED}
    assert files(Path("evaluation")) == {"good-0", "lost-0", "scores"} | compared
    assert files(Path("evaluation/scores")) == {"good-0-validation.json", "good-0-test.json"}
    run = run_of_good()
    assert run.data.metrics["validation/accuracy"] == 1
    artifacts = mlflow.MlflowClient().list_artifacts(run.info.run_id, "evaluation")
    assert {f"evaluation/{name}" for name in TABLES | FIGURES} <= {artifact.path for artifact in artifacts}

    logged: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow, "log_metrics", lambda *arguments, **_: logged.append(arguments))
        run_stage()
    assert not logged
    assert run_of_good().data.tags == run.data.tags

    # What `dvc plots show` draws: the curves of both models, the scores of the one that has some.
    assert table("curves")["model"].tolist() == ["good-0", "lost-0"]
    assert table("roc")["model"].unique().tolist() == ["good-0"]
    assert table("roc")["false_positive_rate"].is_monotonic_increasing
    assert table("confusion").to_dict("records") == [
        {"actual": one, "predicted": other, "images": 10, "model": "good-0"}
        for one, other in (CLASSES, CLASSES[::-1])
    ]


def test_one_model_is_scored_beside_the_others_files() -> None:
    Path("metrics").mkdir()
    Path("metrics/other-0.json").touch()
    LOST.evaluation.mkdir(parents=True)  # as a killed evaluation leaves it, without scores
    run_stage("good", "0")
    assert files(Path("metrics")) == {"good-0.json", "other-0.json"}
    assert table("curves")["model"].tolist() == ["good-0"]
    run_stage("lost", "0")
    assert LOST.divergence() == DIVERGED["reason"]


def test_a_metric_that_is_not_a_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.METRICS, "undefined", lambda *_: np.nan)
    line = refusal(run_stage, "good", "0")
    assert line.startswith(
        "error: metrics/good-0.json: cannot be read: validation.undefined: must be a finite"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bad", "0"], "error: VARIANT SEED: allowed: good 0, lost 0; received bad 0"),
        (["good", "0"], "error: predictions/good-0/manifest.json: cannot be read: No such file or directory"),
    ],
)
def test_a_missing_model_is_refused(arguments: list[str], line: str) -> None:
    shutil.rmtree(GOOD.predictions)
    assert refusal(run_stage, *arguments).startswith(line)
    assert not Path("metrics").exists()


def test_a_plausible_edit_of_any_score_is_found() -> None:
    stored = read_arrays(GOOD.predictions)
    predict(GOOD, stored | {"validation_mirror": stored["test"], "test_mirror": stored["validation"]})
    run_stage("good", "0")
    scores = GOOD.metrics()
    assert checked_scores(GOOD, "auto", metrics.scores) == scores
    assert list(scores) == ["validation", "test", "validation_served", "test_served"]
    assert [scores[name]["accuracy"] for name in scores] == [1, 0, 0, 1]  # it is served with its views
    for part, name in product(scores, metrics.METRICS):
        write_json(GOOD.scores, {**scores, part: scores[part] | {name: 0.95}})
        line = f"metrics/good-0.json: {part} {name} 0.95, but predictions/good-0 gives {scores[part][name]}: "
        assert refusal(checked_scores, GOOD, "auto", metrics.scores) == f"{line}run `dvc repro evaluate`"


def test_scores_are_not_logged_for_another_model_or_of_another_one() -> None:
    run_stage("good", "0")
    GOOD.model.write_text("another model")
    line = "predictions/good-0: not of models/good-0/model.keras: run `dvc repro evaluate`"
    assert refusal(checked_scores, GOOD) == line
    assert refusal(run_stage, "good", "0") == f"error: {line}"


def test_a_clock_that_was_set_back_hides_no_score() -> None:
    client, run_id, later = mlflow.MlflowClient(), run_of_good().info.run_id, 4_102_444_800_000  # 2100
    client.log_metric(run_id, "test/accuracy", 0.9, timestamp=later)
    client.set_tag(run_id, "evaluation_digest", "of the former scores")
    run_stage("good", "0")
    assert client.get_run(run_id).data.metrics["test/accuracy"] == 0


@pytest.mark.parametrize("change", [lambda p: p[:3], lambda p: p.T, lambda p: p * 2, lambda p: p * np.nan])
def test_probabilities_must_fit_the_images(change: Any) -> None:
    stored = read_arrays(GOOD.predictions)
    predict(GOOD, {"test": stored["test"], "validation": change(stored["validation"])})
    line = refusal(read_probabilities, GOOD, "validation")
    assert line.startswith("predictions/good-0/validation.npy: expected probabilities (20, 2); received ")
