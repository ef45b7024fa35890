"""Scores of predicted probabilities, as plain functions of arrays, by scikit-learn.

Throughout: labels int64 (n,), probabilities float32 (n, classes) whose rows sum to 1.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)
from sklearn.preprocessing import label_binarize

SMALLEST = np.finfo(np.float32).tiny  # so that the logarithm of a probability stays finite


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The cross-entropy of each prediction in nats, float64 (n,)."""
    of_the_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(of_the_label, SMALLEST))


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Mean cross-entropy (`loss`), accuracy, precision, recall, F1 (macro and weighted), macro AUC."""
    predicted = probabilities.argmax(axis=1)
    found = {
        "loss": float(cross_entropy(labels, probabilities).mean()),
        "accuracy": float((predicted == labels).mean()),
        "auc_macro": float(np.mean(list(class_auc(labels, probabilities).values()))),
    }
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            found[f"{name}_{average}"] = float(value)
    return found


def per_class(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, F1, support and AUC of each class (rows), one against the rest."""
    values = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(classes)), zero_division=0
    )
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), values, strict=True)))
    table["auc"] = list(class_auc(labels, probabilities).values())
    return table.set_axis(pd.Index(classes, name="class"))


def report(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> str:
    """scikit-learn's classification report, as it prints it."""
    predicted = probabilities.argmax(axis=1)
    return str(
        classification_report(
            labels,
            predicted,
            labels=range(len(classes)),
            target_names=classes,
            digits=3,
            zero_division=0,
        )
    )


def confusion(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """How many images of each class (rows) were taken for each class (columns)."""
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(classes)))
    return pd.DataFrame(counts, index=pd.Index(classes, name="actual"), columns=classes)


def most_confused(counts: pd.DataFrame, pairs: int = 10) -> pd.DataFrame:
    """The pairs of classes that are mixed up most, both ways together, with the counts of each way."""
    classes = list(counts.columns)
    matrix = counts.to_numpy()
    rows = [
        (one, other, matrix[i, j] + matrix[j, i], matrix[i, j], matrix[j, i])
        for i, one in enumerate(classes)
        for j, other in enumerate(classes[:i])
    ]
    columns = ["one", "other", "images", "one_as_other", "other_as_one"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("images", ascending=False, kind="stable").head(pairs)


def class_auc(labels: np.ndarray, probabilities: np.ndarray) -> dict[int, float]:
    """The area under each class's ROC curve, one against the rest."""
    actual = _one_hot(labels, probabilities.shape[1])
    return {
        label: float(roc_auc_score(actual[:, label], probabilities[:, label]))
        for label in range(probabilities.shape[1])
    }


def roc_points(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], points: int = 100
) -> pd.DataFrame:
    """Each class's ROC curve, one against the rest, at `points` evenly spaced false positive rates."""
    actual, rates = _one_hot(labels, len(classes)), np.linspace(0, 1, points)
    curves = [roc_curve(actual[:, i], probabilities[:, i])[:2] for i in range(len(classes))]
    tables = [
        pd.DataFrame({"class": name, "false_positive_rate": rates, "true_positive_rate": heights})
        for name, heights in zip(classes, (np.interp(rates, *curve) for curve in curves), strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    binary = label_binarize(labels, classes=range(classes))
    return np.hstack([1 - binary, binary]) if classes == 2 else binary
