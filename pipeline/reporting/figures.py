"""The report's own figures, which compare all models."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure


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
    lowest = pd.concat(histories.values())["val_loss"].min()  # NaN if every training diverged
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
