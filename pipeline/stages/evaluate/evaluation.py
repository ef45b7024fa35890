"""The scores, tables and figures of models, from their stored probabilities.

A process that evaluates imports neither TensorFlow nor MLflow, so many can work side by side.
"""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.core.arrays import read_arrays, read_facts, write_json
from pipeline.params import Serving
from pipeline.shared import metrics
from pipeline.shared.image_names import for_figure, image_names
from pipeline.shared.served_predictor import served_predictor
from pipeline.shared.stored_probabilities import read_probabilities, views_of
from pipeline.stages.evaluate import model_figures
from pipeline.support.json_and_csv import read_table
from pipeline.support.model_files import SERVED, ModelFiles
from pipeline.support.new_files import write_figure, write_table, write_text
from pipeline.support.paths import EVALUATION, PREPARED
from pipeline.support.words import count

PARTS = ("validation", "test")


def evaluate(files: ModelFiles, serving: Serving) -> str:
    """Write metrics/VARIANT-SEED.json and the files of evaluation/VARIANT-SEED, of the model as it is served.

    For a training that diverged, writes only its status, reason and curves. Returns the result in one line.
    """
    history, record = files.epochs(), files.record()
    files.evaluation.mkdir(parents=True, exist_ok=True)
    if record.divergence is not None:
        write_json(files.scores, {"status": "diverged", "reason": record.divergence})
        line = f"{files.name}: {record.outcome}"
        write_figure(files.evaluation / "curves.png", model_figures.training_curves(history, line))
        return line

    classes = read_facts(PREPARED / "split")["classes"]
    data = {part: read_arrays(PREPARED / part) for part in PARTS}
    served = served_predictor(files, serving.temperature)
    scores = {
        part + kind: metrics.scores(data[part]["labels"], predicted(part))
        for kind, predicted in (("", partial(read_probabilities, files)), (SERVED, served.probabilities))
        for part in PARTS
    }
    labels, probabilities = data["test"]["labels"], served.probabilities("test")
    tables = make_tables(labels, probabilities, classes, serving.refuse_below)
    tables["misclassified"] = pd.concat(
        misclassified(part, data[part]["labels"], served.probabilities(part), classes) for part in PARTS
    ).assign(model=files.name)
    tables["temperature"] = metrics.temperature_effect(labels, served.unscaled("test"), served.temperature)
    for title, table in tables.items():
        write_table(files.evaluation / f"{title}.csv", table, index=table.index.name is not None)
    for title, figure in make_figures(
        files.name, history, tables, data["test"], probabilities, classes
    ).items():
        write_figure(files.evaluation / f"{title}.png", figure)
    report = metrics.report(labels, probabilities, classes)
    write_text(files.evaluation / "classification_report.txt", report)
    write_json(files.scores, scores)
    accuracies = (f"{part} accuracy {scores[part]['accuracy']:.4f}" for part in PARTS)
    return f"{files.name}: {', '.join(accuracies)}"


def make_tables(
    labels: np.ndarray, predicted: np.ndarray, classes: list[str], refuse_below: float | None
) -> dict[str, pd.DataFrame]:
    """The tables of the test images: labels (n,), predicted probabilities (n, classes)."""
    confusion = metrics.confusion(labels, predicted, classes)
    return {
        "per_class": metrics.per_class(labels, predicted, classes),
        "confusion": confusion,
        "most_confused": metrics.most_confused(confusion),
        "roc": metrics.roc_points(labels, predicted, classes),
        "reliability": metrics.reliability(labels, predicted),
        "coverage": metrics.coverage(labels, predicted, refuse_below),
    }


def misclassified(part: str, labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """The images of a part whose most probable class is not their label, most confident first."""
    confidence, found = predicted.max(axis=1), predicted.argmax(axis=1)
    rows = [row for row in np.argsort(-confidence, kind="stable") if found[row] != labels[row]]
    return pd.DataFrame(
        {
            "part": part,
            "image": image_names(part)[rows],
            "label": [classes[label] for label in labels[rows]],
            "predicted": [classes[label] for label in found[rows]],
            "confidence": confidence[rows].round(4),
        }
    )


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
    title = f"{name}: {count(len(right), 'test image')}"
    return {
        "curves": model_figures.training_curves(history, name),
        "confusion": model_figures.confusion_heat_map(tables["confusion"], title),
        "roc": model_figures.roc_curves(tables["roc"], tables["per_class"]["auc"], title),
        "reliability": model_figures.reliability(tables["reliability"], tables["temperature"], title),
        "coverage": model_figures.coverage(tables["coverage"], title),
        "examples": model_figures.predictions(
            test["images"][shown],
            predicted[shown],
            classes,
            [for_figure(name) for name in image_names("test")[shown]],
            test["labels"][shown].tolist(),
            f"{name}: the first test images that it gets right, and its most confident mistakes",
        ),
    }


def write_comparison(models: list[ModelFiles]) -> None:
    """Write what DVC shows of each model that has been evaluated.

    evaluation/{curves,roc,confusion}.csv, which `dvc plots show` draws on common axes, and
    evaluation/scores/VARIANT-SEED-PART.json, with one view, of which `dvc metrics show` makes a row.
    """
    evaluated = [one for one in models if one.evaluation.is_dir() and one.scores.is_file()]
    scored = [files for files in evaluated if files.divergence() is None]
    for title, chosen, read in (
        ("curves", evaluated, ModelFiles.epochs),
        ("roc", scored, mean_roc),
        ("confusion", scored, confusion),
    ):
        tables = [read(files).assign(model=files.name) for files in chosen]
        table = pd.concat(tables) if tables else pd.DataFrame(columns=["model"])
        write_table(EVALUATION / f"{title}.csv", table)
    for files, part in product(scored, PARTS):
        main = {name: score for name, score in files.metrics()[part].items() if name not in metrics.AVERAGED}
        write_json(EVALUATION / f"scores/{files.name}-{part}.json", main)


def mean_roc(files: ModelFiles) -> pd.DataFrame:
    """The mean of the classes' ROC curves."""
    points = read_table(files.evaluation / "roc.csv", {"class": str})
    return points.groupby("false_positive_rate")[["true_positive_rate"]].mean().reset_index()


def confusion(files: ModelFiles) -> pd.DataFrame:
    """The number of test images for each pair of an actual and a predicted class that occurs."""
    classes = np.array(read_facts(PREPARED / "split")["classes"])
    predicted = read_probabilities(files, "test", views_of(files)).argmax(axis=1)
    labels = {"actual": read_arrays(PREPARED / "test")["labels"], "predicted": predicted}
    images = pd.DataFrame({name: classes[values] for name, values in labels.items()})
    return images.groupby(["actual", "predicted"], as_index=False).size().rename(columns={"size": "images"})
