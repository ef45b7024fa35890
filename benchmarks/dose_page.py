"""docs/dose.md from the accuracies that `benchmarks.dose` has measured."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import linregress, t

from pipeline.stages.report.tables import markdown_table

SEEDS = (0, 1, 2)
VARIANT, WITHOUT = "speedrun", "without_shifts"
AS_THEY_ARE, QUALITY_75 = "as_they_are", "quality_75"
ONE_GRID, ANY_GRID = "quality_50", "quality_50_any_grid"
SHIFTS = ((ONE_GRID, WITHOUT), (ANY_GRID, VARIANT), (ANY_GRID, WITHOUT))  # besides (ONE_GRID, VARIANT)
PARTS = ("validation", "test")
FIRST_PASS = 5.8  # of 255: the mean absolute error of the images of docs/results.md
PAGE = """\
# What JPEG costs

The images of [results.md](results.md) went through JPEG once, at quality 75, on a grid of blocks that
begins at the first pixel. Here training, validation and test images go through it again, on another grid:
each image is laid on a larger one that continues its edges, four pixels right and down, which is half a
block. A small `speedrun` (16, 32, 32 filters) is trained on the first 15,000 training images for 8 epochs, in
float32, with seeds 0, 1 and 2. Nothing was chosen by these accuracies, so test images are scored, too. Made
by `python -m benchmarks.dose`; trainings took {minutes:.0f} CPU minutes on one thread of an {machine}.

`added` is the mean absolute difference from the images as they are, of 255 levels. Accuracies are means and
standard deviations over seeds. The 95 % intervals below are for other seeds, not for other images, and each
holds by itself.

{doses}

## The first pass

By how many points it lowered the accuracy, if the accuracy falls in a straight line with the mean absolute
error, of which the first pass made 5.8; if it falls with the square of the error, since errors that are
independent add up like that; and if the first pass cost what the second at the same quality does:

{costs}

All three extrapolate: no image here is without JPEG. And they are of this network, which is small and trained
for a short time.
"""
OF_SHIFTS = """
## Random shifts

What shifts of up to two pixels give, in points. If they gave nothing because they move images off a grid
that all test images share, they would give more on images that each have a grid of their own (`any_grid`:
laid 0 to 15 pixels right and down, drawn for each image):

{shifts}
"""


def page(found: dict[str, Any]) -> str:
    """The page, without what random shifts give if a training of these lacks its accuracy."""
    rows = pd.DataFrame(
        [
            {"images": images, "variant": variant, "added": found["added"][images], **scores}
            for images, variants in found["scores"].items()
            for variant, seeds in variants.items()
            for scores in seeds.values()
        ]
    )
    counts = rows.groupby(["images", "variant"]).size()
    text = PAGE.format(
        machine=found["machine"]["cpu"],
        minutes=rows["cpu"].sum() / 60,
        doses=markdown_table(doses(rows[rows["variant"] == VARIANT])),
        costs=by_part(costs, rows),
    )
    complete = (counts.reindex(SHIFTS) == len(SEEDS)).all()
    return text + OF_SHIFTS.format(shifts=by_part(shifts, rows)) if complete else text


def by_part(function: Callable[[pd.DataFrame, str], dict[str, str]], rows: pd.DataFrame) -> str:
    """A table of what a function finds on validation and on test images."""
    found = {part: function(rows, part) for part in PARTS}
    return markdown_table(pd.DataFrame(found).rename_axis("points"))


def doses(rows: pd.DataFrame) -> pd.DataFrame:
    """The error of each kind of images, and the means of accuracies with their standard deviations."""
    groups = rows.sort_values("added", kind="stable").groupby("images", sort=False)
    table = groups[["added"]].first().map("{:.2f}".format)
    for part in PARTS:
        means, deviations = (groups[part].agg(name).map("{:.4f}".format) for name in ("mean", "std"))
        table[part] = means + " ± " + deviations
    return table.assign(n=groups.size())


def costs(rows: pd.DataFrame, part: str) -> dict[str, str]:
    """By how many points the first pass of JPEG lowered an accuracy, by three ways of reasoning."""
    line = rows[(rows["variant"] == VARIANT) & (rows["images"] != ANY_GRID)]
    found = {}
    for name, power in (("by the error", 1), ("by its square", 2)):
        fitted = linregress(line["added"] ** power, 100 * line[part])
        reach = t.ppf(0.975, len(line) - 2) * fitted.stderr
        found[name] = in_words(-fitted.slope * FIRST_PASS**power, reach * FIRST_PASS**power)
    again = {(AS_THEY_ARE, VARIANT): 1, (QUALITY_75, VARIANT): -1}
    return found | {"as the second pass": contrast(rows, part, again)}


def shifts(rows: pd.DataFrame, part: str) -> dict[str, str]:
    """What random shifts give on images of one grid and of any, in points, and how much more on any."""
    effects = {images: {(images, VARIANT): 1, (images, WITHOUT): -1} for images in (ONE_GRID, ANY_GRID)}
    opposite = {cell: -sign for cell, sign in effects[ONE_GRID].items()}
    more = {f"{ANY_GRID} less {ONE_GRID}": effects[ANY_GRID] | opposite}
    return {name: contrast(rows, part, signs) for name, signs in (effects | more).items()}


def contrast(rows: pd.DataFrame, part: str, signs: dict[tuple[str, str], int]) -> str:
    """A sum of means over seeds with signs, in points, with the variance pooled over all trainings."""
    groups = (100 * rows[part]).groupby([rows["images"], rows["variant"]])
    freedom = groups.size() - 1
    pooled = np.average(groups.var(), weights=freedom)
    error = np.sqrt(pooled * sum(1 / groups.size()[cell] for cell in signs))
    points = sum(sign * groups.mean()[cell] for cell, sign in signs.items())
    return in_words(points, t.ppf(0.975, freedom.sum()) * error)


def in_words(points: float, reach: float) -> str:
    """Points, and the interval of this reach."""
    return f"{points:+.1f} ({points - reach:+.1f} to {points + reach:+.1f})"
