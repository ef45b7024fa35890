"""The figures of `diagnose`."""

from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.shared.figure_style import new_figure
from pipeline.shared.image_names import for_figure
from pipeline.stages.diagnose.robustness import CORRUPTIONS

SHOWN = 20  # images or pairs of a figure
WIDTH = 18  # of a name above one of them, in characters


def pairs(table: pd.DataFrame, images: dict[str, np.ndarray]) -> Figure:
    """Pairs of near duplicates, from the most to the least similar: an image above the one that it resembles.

    If there are more than SHOWN, evenly chosen ones.
    """
    chosen = np.unique(np.linspace(0, len(table) - 1, min(SHOWN, len(table))).round().astype(int))
    figure, axes = _grid(4, 6.2)
    places = np.concatenate([axes[:2].T, axes[2:].T])  # (SHOWN, 2)
    for (upper, lower), row in zip(places, table.iloc[chosen].to_dict("records"), strict=False):
        upper.imshow(images[row["part"]][row["index"]])
        lower.imshow(images[row["of_part"]][row["of_index"]])
        shown, other = (for_figure(row[name], WIDTH) for name in ("image", "of_image"))
        upper.set_title(f"{row['similarity']:.3f} ({row['part']})\n{shown}", fontsize=7)
        lower.set_title(f"({row['of_part']})\n{other}", fontsize=7)
    return figure


def suspicious(table: pd.DataFrame, images: np.ndarray) -> Figure:
    """The most suspicious labels, with what the model predicts."""
    figure, axes = _grid(2, 3.5)
    for axis, row in zip(axes.flat, table.to_dict("records"), strict=False):
        axis.imshow(images[row["index"]])
        label, predicted = (shorten(row[name], 14, placeholder="...") for name in ("label", "predicted"))
        name = for_figure(row["image"], WIDTH)
        axis.set_title(f"{name}\n{label}\nmore like {predicted}", fontsize=7)
    return figure


def robustness(table: pd.DataFrame) -> Figure:
    """Accuracy by strength of each corruption, a line for each `model`."""
    figure = new_figure(12, 6)
    axes = figure.subplots(2, -(-len(CORRUPTIONS) // 2), sharey=True)
    for axis, (name, corruption) in zip(axes.flat, CORRUPTIONS.items(), strict=True):
        rows = table[table["corruption"] == name]
        for model, line in rows.groupby("model", sort=False):
            axis.plot(line["level"], line["accuracy"], marker="o", label=model)
        axis.set_xticks(range(6), ["none", *(f"{strength:g}" for strength in corruption.strengths)])
        axis.set(title=name, xlabel=corruption.unit, ylim=(0, 1))
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _grid(rows: int, height: float) -> tuple[Figure, np.ndarray]:
    figure = new_figure(11, height)
    axes = figure.subplots(rows, SHOWN // 2)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes
