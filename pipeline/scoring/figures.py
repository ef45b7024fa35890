"""The figures of one model: functions of arrays and tables that return a Matplotlib figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from pipeline.scoring.metrics import cross_entropy


def message(text: str) -> Figure:
    """A figure that holds only a text."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def training_curves(history: pd.DataFrame, title: str) -> Figure:
    """Training and validation accuracy and loss by epoch of one training."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(history["epoch"], history[name], label="training")
        axis.plot(history["epoch"], history[f"val_{name}"], label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def confusion_heat_map(counts: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix as a heat map with counts."""
    size = max(5.0, 0.65 * len(counts) + 1.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    display = ConfusionMatrixDisplay(counts.to_numpy(), display_labels=list(counts.columns))
    display.plot(ax=axis, cmap="Blues", colorbar=False, xticks_rotation="vertical", values_format="d")
    axis.set(title=title, xlabel="predicted", ylabel="actual")
    return figure


def roc_curves(points: pd.DataFrame, areas: dict[str, float], title: str) -> Figure:
    """The ROC curve of each class against the rest, with its area, and the line of guessing."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    for name, curve in points.groupby("class", sort=False):
        label = f"{name} (AUC {areas[str(name)]:.3f})"
        axis.plot(curve["false_positive_rate"], curve["true_positive_rate"], label=label)
    axis.plot([0, 1], [0, 1], "k--", linewidth=1, label="guessing")
    axis.set(title=title, xlabel="false positive rate", ylabel="true positive rate")
    axis.legend(loc="lower right", fontsize="small")
    axis.grid(alpha=0.3)
    return figure


def predictions(
    images: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    names: list[str],
    labels: list[int | None] | None = None,
    title: str | None = None,
) -> Figure:
    """Images (n, height, width, 3) beside their predicted distributions (n, classes), a named row each.

    An image whose label is known has its class in green, and the prediction's cross-entropy in nats.
    """
    figure = Figure(figsize=(10, 1.9 * len(images) + 0.3), layout="constrained")
    figure.suptitle(title or "")
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 4))
    for (left, right), image, row, name, label in zip(
        rows, images, probabilities, names, labels or [None] * len(images), strict=True
    ):
        left.imshow(image)
        left.set_title(name, fontsize="medium")
        left.set_axis_off()
        right.bar(
            classes, row, color=["tab:green" if i == label else "tab:grey" for i in range(len(classes))]
        )
        right.set_ylim(0, 1)
        right.tick_params(axis="x", labelsize="small")
        words = f"predicted: {classes[int(row.argmax())]}"
        if label is not None:
            nats = cross_entropy(np.array([label]), row[None])[0]
            words += f"; actual: {classes[label]} (cross-entropy {nats:.3f} nats)"
        right.set_title(words, fontsize="medium")
    return figure
