"""The comparisons of variants, as the report prints them."""

from typing import Any

import pandas as pd

from pipeline.stages.report import tables
from pipeline.stages.report.controlled import apart
from pipeline.stages.report.results import Results

# What the documents compare: D and B depth, B flips and dropout, C its next step, D normalization.
SYSTEMS = (
    ("deep_gap", "vgg3"),
    ("deep_flips", "deep_dropout"),
    ("model_s_plus", "model_s"),
    ("batchnorm", "vgg3_early_stop"),
    ("augmented", "shallow"),
)


def comparison(results: Results) -> dict[str, Any] | None:
    """The chosen variant against each other one on test images; None if there is no other.

    The names of those that it is `better` or `worse` than, and of those for which that is `unclear`; the
    `table` as it is printed, and the `least` and `most` points that a difference needed to be called real.
    """
    chosen = results.chosen.variant
    others = [name for name in results.table.index if name != chosen]
    if not others:
        return None
    table = results.test.compare([(chosen, name) for name in others])
    table = table.set_axis(pd.Index(labels(results, others), name="compared with"))
    real, reach = table[table["real"]], 100 * (table["high"] - table["difference"])
    return {
        "better": list(real.index[real["difference"] > 0]),
        "worse": list(real.index[real["difference"] < 0]),
        "unclear": list(table.index[~table["real"]]),
        "table": tables.differences(table),
        "least": reach.min(),
        "most": reach.max(),
    }


def labels(results: Results, variants: list[str]) -> list[str]:
    """The names of what is compared: variants, or if each was trained once, their models."""
    if results.test.several_seeds:
        return variants
    names = {one.variant: one.name for one in results.models}
    return [names[variant] for variant in variants]


def one_by_one(results: Results, pairs: dict[tuple[str, str], str], column: str) -> pd.DataFrame | None:
    """The differences of `pairs`, with a `column` for what they differ in; None if there are none."""
    known = {pair: text for pair, text in pairs.items() if set(pair) <= set(results.table.index)}
    if not known:
        return None
    table = tables.differences(results.test.compare(list(known)))
    first, second = (labels(results, [pair[place] for pair in known]) for place in (0, 1))
    named = {column: list(known.values()), "first": first, "second": second}
    return pd.concat([pd.DataFrame(named, index=table.index), table], axis="columns").reset_index(drop=True)


def systems(results: Results) -> dict[tuple[str, str], str]:
    """The documents' comparisons of variants that differ in several things, and these things.

    None of other data than theirs.
    """
    if results.facts["source"] != "cifar10":
        return {}
    pairs = [pair for pair in SYSTEMS if set(pair) <= set(results.settings)]
    return {pair: ", ".join(apart(*(results.settings[name] for name in pair))) for pair in pairs}
