"""The scores, tables and figures of one model, from its stored probabilities.

A process that evaluates imports neither TensorFlow nor MLflow, so many can work side by side.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.core.arrays import read_arrays, read_facts, write_json
from pipeline.shared.stored_probabilities import read_probabilities, views_of
from pipeline.stages.evaluate import metrics, model_figures, temperature
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED

PARTS = ("validation", "test")


def evaluate(files: ModelFiles) -> str:
    """Write metrics/VARIANT-SEED.json and the files of evaluation/VARIANT-SEED.

    For a training that diverged, writes only its status, reason and curves. Returns the result in one line.
    """
    classes = read_facts(PREPARED / "split")["classes"]
    history = files.epochs()
    record = files.record()
    files.evaluation.mkdir(parents=True, exist_ok=True)
    if record.divergence is not None:
        write_json(files.scores, {"status": "diverged", "reason": record.divergence})
        line = f"{files.name}: {record.outcome}"
        model_figures.training_curves(history, line).savefig(files.evaluation / "curves.png", dpi=100)
        return line

    data = {part: read_arrays(PREPARED / part) for part in PARTS}
    predicted = {part: read_probabilities(files, part) for part in PARTS}
    if views := views_of(files):
        predicted |= {f"{part}_{views}": read_probabilities(files, part, views) for part in PARTS}
    scores = {
        name: metrics.scores(data[name.partition("_")[0]]["labels"], rows) for name, rows in predicted.items()
    }
    for part, values in scores.items():
        if infinite := [name for name, value in values.items() if not math.isfinite(value)]:
            raise PipelineError(f"{files.name}: {', '.join(infinite)} of {part} images: not a finite number")
    best = temperature.fit(data["validation"]["labels"], predicted["validation"])
    tables = make_tables(data["test"]["labels"], predicted["test"], classes, best)
    drawn = make_figures(files.name, history, tables, data["test"], predicted["test"], classes)
    report = metrics.report(data["test"]["labels"], predicted["test"], classes)
    write(files, scores, tables, drawn, report)
    accuracies = (f"{part} accuracy {scores[part]['accuracy']:.4f}" for part in PARTS)
    return f"{files.name}: {', '.join(accuracies)}"


def write(
    files: ModelFiles,
    scores: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    drawn: dict[str, Figure],
    report: str,
) -> None:
    """Write the scores and the report, and a file for each table and figure."""
    for title, table in tables.items():
        path = files.evaluation / f"{title}.csv"
        table.to_csv(path, index=table.index.name is not None, lineterminator="\n")
    (files.evaluation / "classification_report.txt").write_text(report)
    for title, figure in drawn.items():
        figure.savefig(files.evaluation / f"{title}.png", dpi=100)
    write_json(files.scores, scores)


def make_tables(
    labels: np.ndarray, predicted: np.ndarray, classes: list[str], best: float
) -> dict[str, pd.DataFrame]:
    """The tables of the test images: labels (n,), predicted probabilities (n, classes), best temperature."""
    confusion = metrics.confusion(labels, predicted, classes)
    return {
        "per_class": metrics.per_class(labels, predicted, classes),
        "confusion": confusion,
        "most_confused": metrics.most_confused(confusion),
        "roc": metrics.roc_points(labels, predicted, classes),
        "reliability": metrics.reliability(labels, predicted),
        "temperature": temperature.effect(best, labels, predicted),
    }


def make_figures(
    name: str,
    history: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    test: dict[str, np.ndarray],
    predicted: np.ndarray,
    classes: list[str],
) -> dict[str, Figure]:
    """The figures of one model; the examples are three test images it gets right, and its worst mistakes."""
    right = predicted.argmax(axis=1) == test["labels"]
    surest = np.argsort(-predicted.max(axis=1), kind="stable")
    shown = np.concatenate([np.flatnonzero(right)[:3], surest[~right[surest]][:3]])
    title = f"{name}: {len(right):,} test images"
    return {
        "curves": model_figures.training_curves(history, name),
        "confusion": model_figures.confusion_heat_map(tables["confusion"], title),
        "roc": model_figures.roc_curves(tables["roc"], tables["per_class"]["auc"], title),
        "reliability": model_figures.reliability(tables["reliability"], tables["temperature"], title),
        "examples": model_figures.predictions(
            test["images"][shown],
            predicted[shown],
            classes,
            [f"test image {index}" for index in shown],
            test["labels"][shown].tolist(),
            f"{name}: the first test images that it gets right, and its most confident mistakes",
        ),
    }
