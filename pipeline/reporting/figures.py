"""The report's own figures, which compare all models."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from pipeline.reporting.statistics import wilson
from pipeline.shared.figure import new_figure

COLOURS = [
    colormaps["tab20"](number) for number in (*range(0, 20, 2), *range(1, 20, 2))
]  # the dark ones first


def all_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy and loss by epoch of every training, VARIANT-SEED: a colour for each variant."""
    variant_of = {name: name.rpartition("-")[0] for name in histories}
    variants = list(dict.fromkeys(variant_of.values()))
    figure = new_figure(12, max(4.5, 0.22 * len(variants) + 1))
    left, right = figure.subplots(1, 2)
    for name, history in histories.items():
        colour = COLOURS[variants.index(variant_of[name]) % len(COLOURS)]
        for axis, measure in ((left, "val_accuracy"), (right, "val_loss")):
            axis.plot(history["epoch"], history[measure], color=colour, marker=".", linewidth=1)
    left.set(xlabel="epoch", ylabel="validation accuracy")
    right.set(xlabel="epoch", ylabel="validation loss (nats)")
    losses = pd.concat(histories.values())["val_loss"]
    if np.isfinite(losses.min()):  # NaN if every training diverged
        right.set_ylim(0.9 * losses.min(), min(1.05 * losses.max(), max(2.4, 1.5 * losses.min())))
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    lines = dict(zip(variant_of.values(), left.lines, strict=True))
    figure.legend(lines.values(), lines, loc="outside right center", fontsize="small")
    return figure


def accuracies(table: pd.DataFrame, counts: dict[str, int]) -> Figure:
    """Validation and test accuracy of each variant (rows, best first) on so many images, and as published.

    Bars are standard deviations over seeds, or with one seed the 95 % interval for the number of images.
    """
    figure = new_figure(10, 0.5 * len(table) + 1.5)
    axis = figure.subplots()
    rows = np.arange(len(table))[::-1]
    for part, shift, colour in (("validation", 0.15, "tab:blue"), ("test", -0.15, "tab:orange")):
        intervals = np.array([wilson(accuracy, counts[part]) for accuracy in table[part]]).T
        deviation = table[f"{part}_sd"].to_numpy()
        errors = np.where(np.isnan(deviation), np.abs(intervals - table[part].to_numpy()), deviation)
        label = f"{part} ({counts[part]:,} images)"
        axis.errorbar(table[part], rows + shift, xerr=errors, fmt="o", color=colour, capsize=2, label=label)
        for row, value, error in zip(rows, table[part], errors[1], strict=True):
            place = (value + error, row + shift)
            axis.annotate(f"{value:.3f}", place, (5, 0), textcoords="offset points", va="center", size=8)
    if table["published"].notna().any():
        axis.plot(table["published"], rows - 0.15, "k|", markersize=12, label="published (test)")
    axis.set_yticks(rows, list(table.index))
    seeds = int(table["seeds"].max())
    bars = "95 % interval" if seeds == 1 else f"mean and standard deviation of {seeds} seeds"
    axis.set(xlabel=f"accuracy, {bars}", ylim=(-0.6, len(table) - 0.4))
    axis.margins(x=0.1)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    return figure
