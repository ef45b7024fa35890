"""The report's own figures, which compare all models."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pipeline.shared.figure_style import INK, new_figure
from pipeline.stages.report.statistics import wilson

PER_ROW = 4  # panels


def all_curves(histories: dict[str, pd.DataFrame], score: str) -> Figure:
    """Accuracy or loss by epoch of each VARIANT-SEED: a panel for each variant, with the others in grey."""
    variants: dict[str, list[pd.DataFrame]] = {}
    for name, history in histories.items():
        variants.setdefault(name.rpartition("-")[0], []).append(history)
    columns = min(PER_ROW, len(variants))
    rows = -(-len(variants) // columns)
    figure = new_figure(max(5, 2.8 * columns), 2.1 * rows + 0.6)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in panels.flat[len(variants) :]:
        axis.set_axis_off()
    for axis, (variant, own) in zip(panels.flat, variants.items(), strict=False):
        for history in histories.values():
            axis.plot(history["epoch"], history[f"val_{score}"], color=INK, alpha=0.35, linewidth=0.6)
        for history in own:
            axis.plot(history["epoch"], history[score], color="tab:orange", marker=".", linewidth=1)
            axis.plot(history["epoch"], history[f"val_{score}"], color="tab:blue", marker=".", linewidth=1)
        axis.set_title(variant, fontsize="medium")
        axis.tick_params(labelbottom=True)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    lines = panels[0, 0].lines
    names = {"validation": lines[-1], "training": lines[-2]}
    if len(variants) > 1:
        names["validation of the others"] = lines[0]
    figure.legend(names.values(), names, loc="outside upper center", ncols=3, fontsize="small")
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("loss (nats)" if score == "loss" else score, fontsize="medium")
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
        axis.plot(table["published"], rows - 0.15, "|", color=INK, markersize=12, label="published (test)")
    axis.set_yticks(rows, list(table.index))
    seeds = int(table["seeds"].max())
    bars = "95 % interval" if seeds == 1 else f"mean and standard deviation of {seeds} seeds"
    axis.set(xlabel=f"accuracy, {bars}", ylim=(-0.6, len(table) - 0.4))
    axis.margins(x=0.1)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    return figure


def frontier(table: pd.DataFrame) -> Figure:
    """Test accuracy of each variant (rows), with its standard deviation over seeds, against CPU `minutes`.

    A line joins the variants that no other beats in both.
    """
    figure = new_figure(8, 5)
    axis = figure.subplots()
    ordered = table.sort_values("minutes")
    best = ordered[ordered["test"] > ordered["test"].cummax().shift(fill_value=0)]
    axis.plot(best["minutes"], best["test"], color="tab:blue", linewidth=1, zorder=1)
    deviation = table["test_sd"]  # NaN, so without a bar, of one seed
    axis.errorbar(table["minutes"], table["test"], deviation, fmt="o", color="tab:blue", capsize=3)
    for name, row in table.iterrows():
        to_the_right = (table["minutes"] / row["minutes"]).between(1, 1.5, inclusive="right")
        crowded = (to_the_right & ((table["test"] - row["test"]).abs() < 0.02)).any()
        place, side = ((-5, 5), "right") if crowded else ((5, -10), "left")
        at = row["minutes"], row["test"]
        axis.annotate(str(name), at, place, textcoords="offset points", size=8, horizontalalignment=side)
    axis.set(xscale="log", xlabel="CPU minutes of a training", ylabel="test accuracy, one view")
    axis.margins(x=0.25)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    return figure
