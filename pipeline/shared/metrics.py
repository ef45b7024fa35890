"""Metrics of predicted probabilities: functions of labels int64 (n,) and probabilities float32 (n, classes).

To add a metric, write a function with the decorator `metric`. `evaluate` stores them all, and
`promotion.metric` names the one that chooses.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import (
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from pipeline.shared.served_predictor import Temperature
from pipeline.shared.temperature import log, scaled

Metric = Callable[[np.ndarray, np.ndarray], float]

METRICS: dict[str, Metric] = {}
BINS = 15  # of a calibration error, as in Guo et al. (2017)
LOWEST_RATE = 1e-3  # of false positives, at which a ROC curve begins
THRESHOLDS = (0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of confidence


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The cross-entropy of each prediction in nats, float64 (n,)."""
    of_the_label = probabilities[np.arange(len(labels)), labels]
    return -log(of_the_label)


def metric(function: Metric) -> Metric:
    """Make a function of labels and probabilities a score that is stored, logged and shown by its name."""
    METRICS[function.__name__] = function
    return function


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric by its name."""
    return {name: float(function(labels, probabilities)) for name, function in METRICS.items()}


@metric
def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean cross-entropy in nats."""
    return float(cross_entropy(labels, probabilities).mean())


@metric
def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The fraction of images whose most probable class is right."""
    return float((probabilities.argmax(axis=1) == labels).mean())


@metric
def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean over classes of the fraction of its images whose most probable class is right."""
    return float(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))


@metric
def auc_macro(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean area under the classes' ROC curves, one against the rest."""
    return float(class_auc(labels, probabilities).mean())


@metric
def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean squared distance to certainty of the right class, from 0 to 2 (Brier, 1950)."""
    certain = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - certain).sum(axis=1).mean())


@metric
def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The expected calibration error: how far confidence and accuracy differ, in the mean over bins."""
    bins = reliability(labels, probabilities)
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["images"]))


def _averaged(score: Callable[..., float], average: str) -> Metric:
    """scikit-learn's precision, recall or F1, averaged over classes."""
    return lambda labels, probabilities: score(
        labels, probabilities.argmax(axis=1), average=average, zero_division=0
    )


AVERAGED: dict[str, Metric] = {
    "precision_macro": _averaged(precision_score, "macro"),
    "recall_macro": _averaged(recall_score, "macro"),
    "f1_macro": _averaged(f1_score, "macro"),
    "precision_weighted": _averaged(precision_score, "weighted"),
    "recall_weighted": _averaged(recall_score, "weighted"),
    "f1_weighted": _averaged(f1_score, "weighted"),
}
METRICS |= AVERAGED


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Mean confidence and accuracy in BINS of equally many images, the least confident first."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    values = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(axis=1) == labels})
    ordered = values.sort_values("confidence", kind="stable", ignore_index=True)
    groups = ordered.groupby(ordered.index * BINS // len(ordered))
    return groups.mean().assign(images=groups.size())


def temperature_effect(
    labels: np.ndarray, probabilities: np.ndarray, temperature: Temperature
) -> pd.DataFrame:
    """The scores that a temperature changes: without it in the first row, with it in the second."""
    functions = (loss, brier, calibration_error)
    both = (probabilities, scaled(probabilities, temperature.best))
    rows = [{one.__name__: one(labels, changed) for one in functions} for changed in both]
    table = pd.DataFrame(rows).assign(temperature=[1.0, temperature.best])
    return table.assign(low=temperature.low, high=temperature.high)


def coverage(
    labels: np.ndarray, probabilities: np.ndarray, refuse_below: float | None = None
) -> pd.DataFrame:
    """What would be answered if less confidence than a threshold were refused: a row for each threshold.

    `threshold`, the share of images that are answered, `coverage`, the `accuracy` on these, and whether it
    is `served`. The thresholds are THRESHOLDS and `refuse_below`, as long as an image is answered.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    thresholds = sorted({*THRESHOLDS, refuse_below or 0})
    answered = [(threshold, confidence >= threshold) for threshold in thresholds]
    rows = [(float(one), these.mean(), right[these].mean()) for one, these in answered if these.any()]
    table = pd.DataFrame(rows, columns=["threshold", "coverage", "accuracy"])
    return table.assign(served=table["threshold"] == (refuse_below or 0))


def per_class(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, F1, support and AUC of each class (rows), one against the rest."""
    values = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(classes)), zero_division=0
    )
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), values, strict=True)))
    table["auc"] = class_auc(labels, probabilities)
    return table.set_axis(pd.Index(classes, name="class"))


def report(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> str:
    """scikit-learn's classification report, as it prints it."""
    named = {"labels": range(len(classes)), "target_names": classes}
    predicted = probabilities.argmax(axis=1)
    return str(classification_report(labels, predicted, digits=3, zero_division=0, **named))


def confusion(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """The number of images of each class (rows) that were predicted as each class (columns)."""
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(classes)))
    return pd.DataFrame(counts, index=pd.Index(classes, name="actual"), columns=classes)


def most_confused(counts: pd.DataFrame, pairs: int = 10) -> pd.DataFrame:
    """The pairs of classes that are confused most, with the counts of both ways."""
    matrix = counts.to_numpy()
    i, j = np.tril_indices(len(counts), -1)
    table = pd.DataFrame(
        {
            "one": counts.columns[i],
            "other": counts.columns[j],
            "images": matrix[i, j] + matrix[j, i],
            "one_as_other": matrix[i, j],
            "other_as_one": matrix[j, i],
        }
    )
    return table.sort_values("images", ascending=False, kind="stable").head(pairs)


def class_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The area under each class's ROC curve, one against the rest, float64 (classes,)."""
    certain = np.eye(probabilities.shape[1])[labels]
    return np.asarray(roc_auc_score(certain, probabilities, average=None))


def roc_points(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], points: int = 100
) -> pd.DataFrame:
    """Each class's ROC curve, one against the rest, at `points` false positive rates.

    They are evenly spaced on a logarithmic axis, since good curves differ only at low rates.
    """
    rates = np.concatenate([[0], np.geomspace(LOWEST_RATE, 1, points - 1)])
    heights = [
        np.interp(rates, *roc_curve(labels == label, column)[:2])
        for label, column in enumerate(probabilities.T)
    ]
    return pd.DataFrame(
        {
            "class": np.repeat(classes, points),
            "false_positive_rate": np.tile(rates, len(classes)),
            "true_positive_rate": np.concatenate(heights),
        }
    )
