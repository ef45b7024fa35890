"""Every figure, as a function of arrays and tables that returns a Matplotlib figure.

scikit-learn is imported by the figures that need it: prepare and report start without it.
"""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure


def sample_grid(images: np.ndarray, labels: np.ndarray, classes: list[str]) -> Figure:
    """The first eight images of each class, a row a class (of the first ten)."""
    shown = classes[:10]
    figure = Figure(figsize=(8, len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 8, squeeze=False)
    for label, row in enumerate(axes):
        for axis in row:
            axis.set_axis_off()
        for axis, index in zip(row, np.flatnonzero(labels == label), strict=False):
            axis.imshow(images[index])
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_frame_on(False)
        row[0].set_ylabel(shown[label], rotation=0, ha="right", va="center")
    return figure


def message(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def training_curves(history: pd.DataFrame, title: str) -> Figure:
    """Accuracy and loss by epoch, training against validation, of one training."""
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
    """The confusion matrix as numbers on colours."""
    from sklearn.metrics import ConfusionMatrixDisplay

    size = max(5.0, 0.65 * len(counts) + 1.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    display = ConfusionMatrixDisplay(counts.to_numpy(), display_labels=list(counts.columns))
    display.plot(ax=axis, cmap="Blues", colorbar=False, xticks_rotation="vertical", values_format="d")
    axis.set(title=title, xlabel="predicted", ylabel="actual")
    return figure


def roc_curves(points: pd.DataFrame, areas: dict[str, float], title: str) -> Figure:
    """Each class's ROC curve against the rest, with its area, and that of guessing."""
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
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str], title: str
) -> Figure:
    """Images beside their predicted distribution, the actual class marked, with the cross-entropy."""
    from pipeline.scoring.metrics import cross_entropy

    figure = Figure(figsize=(10, 1.9 * len(images)), layout="constrained")
    figure.suptitle(title)
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 4))
    nats = cross_entropy(labels, probabilities)
    for (left, right), image, label, row, loss in zip(rows, images, labels, probabilities, nats, strict=True):
        left.imshow(image)
        left.set_axis_off()
        colours = ["tab:green" if i == label else "tab:grey" for i in range(len(classes))]
        right.bar(classes, row, color=colours)
        right.set_ylim(0, 1)
        right.tick_params(axis="x", labelsize="small")
        predicted = classes[int(row.argmax())]
        right.set_title(f"{classes[label]}, taken for {predicted}: {loss:.3f} nats", fontsize="medium")
    return figure


def all_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy and loss by epoch of every training, in one figure."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = colormaps["tab20"]
    for number, (name, history) in enumerate(histories.items()):
        colour = colours(number % 20)
        left.plot(history["epoch"], history["val_accuracy"], color=colour, label=name)
        right.plot(history["epoch"], history["val_loss"], color=colour)
    left.set(xlabel="epoch", ylabel="validation accuracy")
    right.set(xlabel="epoch", ylabel="validation loss")
    lowest = pd.concat(histories.values())["val_loss"].min()  # NaN where every training diverged
    if np.isfinite(lowest):
        right.set_ylim(0.9 * lowest, max(2.4, 1.5 * lowest))
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def accuracies(table: pd.DataFrame) -> Figure:
    """Validation and test accuracy of each variant (rows, best first), with the published figure."""
    figure = Figure(figsize=(10, 0.45 * len(table) + 1.5), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(table))[::-1]
    axis.barh(rows + 0.2, table["validation"], height=0.38, color="tab:blue", label="validation")
    axis.barh(rows - 0.2, table["test"], height=0.38, color="tab:orange", label="test")
    if table["published"].notna().any():
        axis.plot(table["published"], rows - 0.2, "k|", markersize=12, label="published (test)")
    axis.set_yticks(rows, list(table.index))
    axis.set(xlabel="accuracy", xlim=(0, 1))
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
