"""The figures of one model: functions of arrays and tables that return a Matplotlib figure.

Up to `NAMED` classes are named one by one; of more, only those that matter most.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from pipeline.shared.figure_style import COUNTS, INK, new_figure
from pipeline.shared.metrics import LOWEST_RATE, cross_entropy

NAMED = 20
TICKS = 100  # of an axis with many classes


def training_curves(history: pd.DataFrame, title: str) -> Figure:
    """Training and validation accuracy and loss by epoch of one training."""
    figure = new_figure(10, 4)
    figure.suptitle(title)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(history["epoch"], history[name], marker=".", label="training")
        axis.plot(history["epoch"], history[f"val_{name}"], marker=".", label="validation")
        axis.set(xlabel="epoch", ylabel="loss (nats)" if name == "loss" else name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def confusion_heat_map(counts: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix as a heat map: with counts in its cells, or with a colour bar for many classes."""
    few = len(counts) <= NAMED
    size = max(5.0, 0.5 * len(counts) + 1.5) if few else 12
    figure = new_figure(size, size)
    axis = figure.subplots()
    if few:
        display = ConfusionMatrixDisplay(counts.to_numpy(), display_labels=list(counts.columns))
        rotation = 90 if max(map(len, counts.columns)) > 4 else 0
        style = {"cmap": COUNTS, "colorbar": False, "im_kw": {"norm": PowerNorm(0.5)}}
        display.plot(ax=axis, xticks_rotation=rotation, values_format="d", **style)
        for text, count in zip(display.text_.flat, counts.to_numpy().flat, strict=True):
            text.set(
                color="white" if count > 0.3 * counts.to_numpy().max() else INK, alpha=1 if count else 0.5
            )
    else:
        image = axis.imshow(counts, cmap=COUNTS, norm=PowerNorm(0.5), interpolation="nearest")
        figure.colorbar(image, label="images", shrink=0.5)
        named = range(0, len(counts), -(-len(counts) // TICKS))
        names = [counts.columns[number] for number in named]
        axis.set_xticks(named, names, rotation=90, fontsize=6)
        axis.set_yticks(named, names, fontsize=6)
    axis.set(title=title, xlabel="predicted", ylabel="actual")
    return figure


def roc_curves(points: pd.DataFrame, areas: pd.Series, title: str) -> Figure:
    """Each class's ROC curve against the rest, and the line of guessing.

    `areas` holds the area under each class's curve. Of many classes, the ten with the smallest areas are
    named and the others grey.
    """
    figure = new_figure(9, 5)
    axis = figure.subplots()
    named = areas if len(areas) <= NAMED else areas.nsmallest(10)
    curves = points.set_index("class")
    for name in areas.index.drop(named.index):
        axis.plot(*curves.loc[name].to_numpy().T, color=INK, alpha=0.3, linewidth=0.5)
    for name, area in named.items():
        axis.plot(*curves.loc[str(name)].to_numpy().T, label=f"{name} (AUC {area:.4f})")
    lowest = points.groupby("false_positive_rate")["true_positive_rate"].min()[LOWEST_RATE:]
    bottom = min(lowest.iloc[0], 0.98)
    end = min(1, 10 * lowest.index[lowest >= 0.999][0])  # where all curves have long been at the top
    if bottom < end:
        axis.plot(lowest.index, lowest.index, "--", color=INK, linewidth=1, label="guessing")
    axis.set(title=title, xlabel="false positive rate", ylabel="true positive rate")
    axis.set(xscale="log", xlim=(LOWEST_RATE, end), ylim=with_margin(bottom))
    axis.xaxis.set_major_formatter("{x:g}")  # a logarithmic axis has formulas
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    heading = "class against the rest" if named is areas else f"hardest 10 of {len(areas)} classes"
    figure.legend(loc="outside right center", fontsize="small", title=heading)
    return figure


def with_margin(bottom: float) -> tuple[float, float]:
    """The limits of an axis from `bottom` to 1."""
    margin = 0.04 * (1 - bottom)
    return bottom - margin, 1 + margin


def coverage(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy on the images that are answered against their share: `table` is that of `metrics.coverage`."""
    figure = new_figure(9, 4)
    axis = figure.subplots()
    axis.plot(table["coverage"], table["accuracy"], marker="o", clip_on=False)
    for threshold, *place in table[["threshold", "coverage", "accuracy"]].to_numpy():
        if threshold:
            name, (x, y) = f"{threshold:g}", place
            axis.annotate(name, (x, y), (5, -10), textcoords="offset points", size=8)
    axis.set(title=title, xlabel="share of images that are answered", ylabel="accuracy on these")
    axis.margins(y=0.15)
    axis.invert_xaxis()
    axis.text(0.97, 0.03, "numbers: the least confidence", transform=axis.transAxes, ha="right")
    axis.grid(alpha=0.3)
    return figure


def reliability(bins: pd.DataFrame, effect: pd.DataFrame, title: str) -> Figure:
    """Confidence and accuracy in bins of equally many test images, and what the temperature changed.

    `bins` and `effect` are the tables of `metrics.reliability` and `metrics.temperature_effect`. The bins are
    evenly spaced, since those of a good model have nearly the same confidence.
    """
    figure = new_figure(9, 4)
    axis = figure.subplots()
    places = np.arange(1, len(bins) + 1)
    for name, colour in (("accuracy", "tab:blue"), ("confidence", "tab:orange")):
        axis.plot(places, bins[name], "o-", color=colour, label=name)
    axis.fill_between(places, bins["accuracy"], bins["confidence"], color=INK, alpha=0.3)
    before, after = (f"{error:.3f}" for error in effect["calibration_error"])
    temperature = effect["temperature"].iloc[1]
    axis.set_title(
        f"{title}\ncalibration error {after}{bias(bins)}; temperature {temperature:.2f}, without it {before}"
    )
    axis.set(xlabel=f"{len(bins)} bins of some {bins['images'].median():,.0f} images, by confidence")
    axis.set(xticks=places, ylim=with_margin(min(bins[["accuracy", "confidence"]].min().min(), 0.95)))
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right center")
    return figure


def bias(bins: pd.DataFrame) -> str:
    """Whether confidence exceeds accuracy, or the reverse; "" if chance explains the difference (5 %)."""
    confidence, weights = bins["confidence"], bins["images"]
    excess = np.average(confidence - bins["accuracy"], weights=weights)
    error = np.sqrt(np.average(confidence * (1 - confidence), weights=weights) / weights.sum())
    return f": {'over' if excess > 0 else 'under'}-confident" if abs(excess) > 1.96 * error else ""


def predictions(
    images: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    names: list[str],
    labels: list[int | None],
    title: str = "",
) -> Figure:
    """Images (n, height, width, 3) beside their predicted distributions (n, classes), a named row each.

    An image whose label is known has its class in green, and the prediction's cross-entropy in nats.
    Of many classes, the ten most probable are shown.
    """
    figure = new_figure(10, 1.9 * len(images) + 0.3)
    figure.suptitle(title)
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 4))
    shown_with = zip(rows, images, probabilities, names, labels, strict=True)
    for (left, right), image, row, name, label in shown_with:
        left.imshow(image)
        left.set_title(name, fontsize="medium")
        left.set_axis_off()
        left.set(xticks=[], yticks=[])  # hidden, but laid out all the same
        shown = range(len(classes)) if len(classes) <= NAMED else (-row).argsort(kind="stable")[:10]
        places = range(len(shown))
        right.bar(places, row[shown], color=["tab:green" if i == label else INK for i in shown])
        right.set_xticks(places, [classes[i] for i in shown], fontsize="small")
        right.set(ylim=(0, 1), yticks=(0, 0.5, 1), ylabel="probability")
        if sum(len(classes[i]) for i in shown) > 90:
            right.tick_params(axis="x", rotation=20)
        words = f"predicted: {classes[int(row.argmax())]}"
        if label is not None:
            nats = cross_entropy(np.array([label]), row[None])[0]
            words += f"; actual: {classes[label]} (cross-entropy {nats:.3f} nats)"
        right.set_title(words, fontsize="medium")
    return figure
