"""Score one trained model on validation and test images: the only stage that reads the test images.

    python -m pipeline.evaluate VARIANT SEED

Reads params.yaml (training.threads), data/prepared/{split,validation,test} and models/VARIANT-SEED.
Writes metrics/VARIANT-SEED.json, from which models are selected and every table is made, and
evaluation/VARIANT-SEED/: tables, figures and the predictions themselves. Logs both to the model's run.
Of a training that diverged, the metrics hold its status and reason, and the tables nothing.
"""

import argparse
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.champion.selection import model_tags, read_metrics
from pipeline.data.arrays import read_arrays, read_facts, write_arrays, write_json
from pipeline.errors import one_line_errors
from pipeline.integrity import check_inputs
from pipeline.learning import checkpoint, models, training
from pipeline.paths import CHECKPOINTS, EVALUATION, METRICS, MODELS, PREPARED
from pipeline.records import store, tracking
from pipeline.running.lock import alone
from pipeline.scoring import figures, metrics
from pipeline.settings.hyperparameters import Hyperparameters
from pipeline.settings.reading import read_params

PARTS = ("validation", "test")


@one_line_errors
@alone
def main() -> None:
    """Predict, score, write and log."""
    name = _argument()
    check_inputs(MODELS / name, *(PREPARED / part for part in ("split", *PARTS)))
    checkpoint.remove(CHECKPOINTS / name)  # DVC has the model by now
    store.check()
    training.make_deterministic(0, read_params(Hyperparameters).training.threads)
    model = models.load(MODELS / name / "model.keras")
    classes = read_facts(PREPARED / "split")["classes"]
    data = {part: read_arrays(PREPARED / part) for part in PARTS}
    predicted = {part: models.probabilities(model, arrays["images"]) for part, arrays in data.items()}
    write_arrays(EVALUATION / name / "probabilities", predicted)
    history = pd.read_csv(MODELS / name / "history.csv")
    ended = tracking.read_training(MODELS / name)["tags"]
    if ended["status"] == "diverged":
        write_diverged(name, ended["reason"], history, classes)
        print(f"{name}: diverged: {ended['reason']}")
        return

    scores = {part: metrics.scores(data[part]["labels"], predicted[part]) for part in PARTS}
    tables = make_tables(data["test"]["labels"], predicted["test"], classes) | {"curves": history}
    drawn = make_figures(name, tables, data["test"], predicted["test"], classes)
    report = metrics.report(data["test"]["labels"], predicted["test"], classes)
    write(name, scores, tables, drawn, report)
    with tracking.best_effort(name):
        log_evaluation(name)
    print(f"{name}: " + ", ".join(f"{part} accuracy {scores[part]['accuracy']:.4f}" for part in PARTS))


def write(
    name: str, scores: dict[str, Any], tables: dict[str, pd.DataFrame], drawn: dict[str, Figure], report: str
) -> None:
    """Write metrics/VARIANT-SEED.json, and a file in evaluation/VARIANT-SEED/ for each of the others."""
    write_json(METRICS / f"{name}.json", scores)
    folder = EVALUATION / name
    for title, table in tables.items():
        named = table.index.name is not None
        table.to_csv(folder / f"{title}.csv", index=named, lineterminator="\n")
    (folder / "classification_report.txt").write_text(report)
    for title, figure in drawn.items():
        figure.savefig(folder / f"{title}.png", dpi=100)


def write_diverged(name: str, reason: str, history: pd.DataFrame, classes: list[str]) -> None:
    """Write the same files with nothing in them but the training's curves, and why that is."""
    guesses = np.full((len(classes), len(classes)), 1 / len(classes))  # to have the tables' columns
    tables = make_tables(np.arange(len(classes)), guesses, classes)
    empty = {title: table.iloc[:0] for title, table in tables.items()} | {"curves": history}
    text = f"{name} diverged: {reason}"
    drawn = {title: figures.message(text) for title in ("confusion", "roc", "examples")}
    drawn["curves"] = figures.training_curves(history, text)
    write(name, {"status": "diverged", "reason": reason}, empty, drawn, f"{text}\n")


def make_tables(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> dict[str, pd.DataFrame]:
    """What is told of the test images in tables: labels (n,), predicted probabilities (n, classes)."""
    confusion = metrics.confusion(labels, predicted, classes)
    named = np.array(classes)
    actual_and_predicted = {"actual": named[labels], "predicted": named[predicted.argmax(axis=1)]}
    return {
        "per_class": metrics.per_class(labels, predicted, classes),
        "confusion": confusion,
        "most_confused": metrics.most_confused(confusion),
        "roc": metrics.roc_points(labels, predicted, classes),
        "predictions": pd.DataFrame(actual_and_predicted),
    }


def make_figures(
    name: str,
    tables: dict[str, pd.DataFrame],
    test: dict[str, np.ndarray],
    predicted: np.ndarray,
    classes: list[str],
) -> dict[str, Figure]:
    """The figures of one model; of the test images, the first three it gets right and wrong."""
    right = predicted.argmax(axis=1) == test["labels"]
    shown = np.concatenate([np.flatnonzero(right)[:3], np.flatnonzero(~right)[:3]])
    areas = {str(name): float(area) for name, area in tables["per_class"]["auc"].items()}
    return {
        "curves": figures.training_curves(tables["curves"], name),
        "confusion": figures.confusion_heat_map(tables["confusion"], f"{name}: test images"),
        "roc": figures.roc_curves(tables["roc"], areas, f"{name}: test images"),
        "examples": figures.predictions(
            test["images"][shown],
            test["labels"][shown],
            predicted[shown],
            classes,
            f"{name}: test images, right and wrong",
        ),
    }


def log_evaluation(name: str) -> bool:
    """Add a model's scores, tables and figures to its run; False, told on the terminal, without one."""
    experiment = read_facts(PREPARED / "split")["name"]
    tags = model_tags(name)
    run = tracking.find_run(experiment, tags)
    if run is None:
        print(f"{name}: has no MLflow run (its training came from DVC's cache); `make sync` makes one")
        return False
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    scores = read_metrics(name)
    mlflow.log_metrics(
        {f"{part}/{key}": scores[part][key] for part in scores for key in scores[part]}, run_id=run_id
    )
    client.log_artifacts(run_id, str(EVALUATION / name), "evaluation")
    client.log_artifact(run_id, str(METRICS / f"{name}.json"), "evaluation")
    return True


def _argument() -> str:
    parser = argparse.ArgumentParser(description="Score one trained model.")
    parser.add_argument("variant", help="a block of `variants` or `finetune.variants` in params.yaml")
    parser.add_argument("seed", type=int, help="the seed that it was trained with")
    arguments = parser.parse_args()
    return f"{arguments.variant}-{arguments.seed}"


if __name__ == "__main__":
    main()
