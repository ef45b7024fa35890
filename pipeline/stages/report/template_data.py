"""The variables of the templates: what the report and the model card show."""

from math import isnan
from typing import Any

import pandas as pd

from pipeline.stages.report import tables
from pipeline.stages.report.at_chance import at_chance, guessing
from pipeline.stages.report.comparisons import comparison, one_by_one, systems
from pipeline.stages.report.controlled import controlled_pairs
from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import LEVEL, gap, wilson

CORRELATED = 10  # a rank correlation needs as many variants
SHOWN = (0.7, 0.9)  # thresholds of confidence


def report_variables(results: Results) -> dict[str, Any]:
    """The variables of report.md.jinja."""
    table, own = results.table, results.per_class
    f1 = results.f1.loc[table.index]
    return {
        **_shared_variables(results),
        "summary": summary(results),
        "overstatement": 100 * results.validation.overstatement(),
        "several_seeds": results.test.several_seeds,
        "deviation": 100 * results.test.deviation,
        "most_seeds": int(table["seeds"].max()),
        "fewest_seeds": int(table["seeds"].min()),
        "variants": tables.variants(results),
        "diverged": results.diverged,
        "settings": tables.settings(results),
        "scores": tables.scores(results),
        "comparison": comparison(results),
        "overfitted": overfitted(results),
        "guessing": guessing(results),
        "at_chance": at_chance(results),
        "controlled": one_by_one(results, controlled_pairs(results.settings), "differ only in"),
        "systems": one_by_one(results, systems(results), "differ in"),
        "size_correlation": size_correlation(table),
        "f1": tables.f1_by_class(f1),
        "hardest": hardest(f1),
        "by_class": tables.by_class(own if len(own) <= tables.ROWS else own.nsmallest(tables.FEWER, "f1")),
        "confused": confused(results.confused),
        "balance": tables.balance(results.balance),
        "near_duplicates": near_duplicates(results),
        "suspicious": len(results.diagnosis["label_errors"]),
    }


def summary(results: Results) -> pd.DataFrame:
    """Three figures of the chosen model as it is served, each above what qualifies it."""
    accuracies = {"test": results.selection.test_accuracy, "validation": results.served_validation}
    intervals = {part: wilson(value, results.facts["counts"][part]) for part, value in accuracies.items()}
    before, after = results.calibration["calibration_error"]
    return pd.DataFrame(
        {
            f"{part} accuracy": [f"{value:.4f}", "95 %: {:.3f} to {:.3f}".format(*intervals[part])]
            for part, value in accuracies.items()
        }
        | {"calibration error": [f"{after:.3f}", f"{before:.3f} without temperature"]}
    )


def card_variables(results: Results) -> dict[str, Any]:
    """The variables of model-card.md.jinja."""
    selection, facts, chosen = results.selection, results.facts, results.chosen
    low, high = wilson(selection.test_accuracy, facts["counts"]["test"])
    unscaled, served = results.calibration.to_dict("records")
    params = results.settings[chosen.variant]
    return {
        **_shared_variables(results),
        "parameters": results.table["parameters"][chosen.variant],
        "class_means": results.per_class[["recall", "f1"]].mean(),
        "low": low,
        "high": high,
        "unscaled": unscaled,
        "served": served,
        "served_validation": results.served_validation,
        "by_class": tables.by_class(results.per_class),
        "training": pd.DataFrame({"setting": list(params), "value": list(map(str, params.values()))}),
    }


def _shared_variables(results: Results) -> dict[str, Any]:
    return {
        "facts": results.facts,
        "selection": results.selection,
        "model": results.chosen.name,
        "models": len(results.models),
        "views": bool(results.table["views"].notna()[results.chosen.variant]),
        "corruptions": corruptions(results),
        "coverage": coverage(results.coverage, results.facts["counts"]["test"]),
    }


def coverage(table: pd.DataFrame, images: int) -> dict[str, Any]:
    """The row of each threshold of SHOWN, and of the one that is `served`, if there is one.

    Each with the 95 % interval of its accuracy, from `low` to `high`.
    """
    rows = {}
    for row in table.to_dict("records"):
        low, high = wilson(row["accuracy"], round(row["coverage"] * images))
        rows[row["threshold"]] = row | {"low": low, "high": high}
    served = [row for row in rows.values() if row["served"] and row["threshold"]]
    return {"shown": [rows[one] for one in SHOWN if one in rows], "served": served[0] if served else None}


def overfitted(results: Results) -> dict[str, Any]:
    """In how many `variants` the training accuracy is higher than the validation accuracy, not by chance.

    Also the variant with the `widest` gap between its `training` and `validation` accuracy, with the interval
    of that gap from `low` to `high`, which hold for all variants at once (Bonferroni).
    """
    table, images = results.table, int(results.diagnosis["training_accuracy"]["images"].iloc[0])
    validating = int(results.facts["counts"]["validation"])
    level = 1 - (1 - LEVEL) / len(table)
    gaps = {
        str(name): gap((row["training_accuracy"], images), (row["validation"], validating), level)
        for name, row in table.iterrows()
    }
    widest = str((table["training_accuracy"] - table["validation"]).idxmax())
    low, high = gaps[widest]
    return {
        "variants": sum(low > 0 for low, _ in gaps.values()),
        "images": images,
        "widest": widest,
        "training": table.at[widest, "training_accuracy"],
        "validation": table.at[widest, "validation"],
        "low": 100 * low,
        "high": 100 * high,
    }


def size_correlation(table: pd.DataFrame) -> float | None:
    """The rank correlation of parameters and validation accuracy; None if there are too few, or all alike."""
    correlations = table[["parameters", "validation"]].corr("spearman", min_periods=CORRELATED)
    found = float(correlations.to_numpy()[0, 1])
    return None if isnan(found) else found


def hardest(f1: pd.DataFrame) -> dict[str, float]:
    """The classes with the lowest mean F1 over the variants (rows): at most three and less than half.

    Empty if too many have the same.
    """
    means = f1.mean().round(3)
    lowest = means.nsmallest(max(1, min(3, (len(means) - 1) // 2)), keep="all")
    return {str(name): f1 for name, f1 in lowest.items()} if len(lowest) <= len(means) / 2 else {}


def confused(pairs: pd.DataFrame) -> dict[str, Any]:
    """The pairs of classes that are confused in `most` images, unless too many are, and the table."""
    images = int(pairs["images"].max())
    first = pairs[pairs["images"] == images]
    names = ("class A", "class B", "images", "A taken for B", "B taken for A")
    return {
        "images": images,
        "most": list(zip(first["one"], first["other"], strict=True)) if len(first) <= 3 else [],
        "table": pairs[pairs["images"] > 0].set_axis(names, axis="columns"),
    }


def near_duplicates(results: Results) -> dict[str, Any]:
    """How many `test` and `validation` images are near duplicates, and their share among `train` images.

    `difference` is that of a median pair's pixels. `within` and `without` are the chosen model's accuracies
    on the test images that are near duplicates and on the others, with intervals; None if there are none.
    """
    pairs = results.diagnosis["near_duplicates"]
    similar, images = (
        results.diagnosis["resemblance"].set_index("part")[column].to_dict()
        for column in ("similar", "images")
    )
    found = pairs.loc[pairs["part"] == "test", "index"]
    right = pd.Series(results.right)
    parts = {"within": right[right.index.isin(found)], "without": right[~right.index.isin(found)]}
    both = all(map(len, parts.values()))
    train = wilson(similar["train"] / images["train"], images["train"])
    return {
        "test": similar["test"],
        "validation": similar["validation"],
        "share": 100 * similar["test"] / images["test"],
        "train": [100 * end for end in train],
        "difference": pairs["difference"].median(),
        **{
            name: (part.mean(), *wilson(part.mean(), len(part))) if both else None
            for name, part in parts.items()
        },
    }


def corruptions(results: Results) -> dict[str, Any]:
    """The chosen model's accuracy on the first images, and its extremes with the strongest corruptions."""
    table = results.diagnosis["robustness"]
    own = table[table["model"] == results.chosen.name]
    last = own[own["level"] == own["level"].max()].set_index("corruption")["accuracy"].sort_values()
    images = int(own["images"].iloc[0])
    return {
        "images": images,
        "test": results.facts["counts"]["test"],
        "accuracy": own["accuracy"].iloc[0],
        "lowest": (", ".join(last.index[last == last.min()]), last.min()),
        "highest": (", ".join(last.index[last == last.max()]), last.max()),
        "grey": (last["grey"], *wilson(last["grey"], images)) if "grey" in last else None,
    }
