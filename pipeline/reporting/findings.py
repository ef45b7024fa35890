"""What the comparison shows, in sentences that agree with the numbers."""

from collections.abc import Iterator
from math import sqrt

import pandas as pd

from pipeline.reporting.markdown import literal
from pipeline.reporting.results import Results

NOISE = 0.015  # differences within this much are noise: one run against one run, thousands of images
CORRELATED = 10  # a rank correlation needs as many variants
PAIRS = {
    "Early stopping": ("vgg3_early_stop", "vgg3"),
    "Adam against SGD on the same network": ("augmented", "augmented_sgd"),
    "Flips in place of dropout": ("deep_flips", "deep_dropout"),
    "Augmentation, L2 and Adam": ("model_s_plus", "model_s"),
    "More training on a subset": ("batchnorm_subset", "batchnorm"),
    "Twice the convolutions in each block": ("vgg3", "batchnorm"),
}


def findings(results: Results) -> Iterator[str]:
    """A sentence for each finding."""
    table = results.table
    yield overfitting(table, results.facts["counts"]["validation"])
    for title, (one, other) in PAIRS.items():
        if one in table.index and other in table.index:
            accuracy, compared = table["validation"][one], table["validation"][other]
            change = round(accuracy - compared, 3)  # as it is printed
            is_noise = abs(change) <= noise(compared, results.facts["counts"]["validation"])
            verdict = "no more than noise" if is_noise else "better" if change > 0 else "worse"
            yield (
                f"**{title}**: `{one}` {accuracy:.4f}, `{other}` {compared:.4f} on validation images: "
                f"{100 * change:+.1f} points, {verdict}."
            )
    if len(table) >= CORRELATED and table["parameters"].nunique() > 1 and table["validation"].nunique() > 1:
        size = float(table["parameters"].corr(table["validation"], method="spearman"))
        yield (
            f"**Size**: the rank correlation of parameters and validation accuracy is {size:+.2f} "
            f"({len(table)} variants)."
        )


def noise(accuracy: float, images: int) -> float:
    """What a difference to an accuracy on so many images must exceed: NOISE, and one standard error of the
    difference of two accuracies (binomial, independent)."""
    return max(NOISE, sqrt(2 * accuracy * (1 - accuracy) / images))


def overfitting(table: pd.DataFrame, images: int) -> str:
    """How far training accuracy exceeds validation accuracy, and for which variants by more than noise."""
    gap = (table["training_accuracy"] - table["validation"]).sort_values(ascending=False, kind="stable")
    most = max(noise(accuracy, images) for accuracy in table["validation"])
    count, points = int((gap > most).sum()), f"more than {100 * most:.1f} points"
    if not count:
        return f"**Over-fitting**: no training accuracy exceeds the validation accuracy by {points}."
    first = table.loc[gap.index[0]]
    figures = (
        f"{first['training_accuracy']:.3f} in the last epoch, {first['validation']:.3f} on validation images"
    )
    return (
        f"**Over-fitting**: training accuracy exceeds validation accuracy by {points} for {count} of "
        f"{len(table)} variants. The widest gap is that of `{gap.index[0]}`: {figures}."
    )


def hardest(f1: pd.DataFrame) -> str:
    """The classes with the lowest mean F1 over the variants (rows): at most three and less than half."""
    means = f1.mean().round(3)
    lowest = means.nsmallest(max(1, min(3, (len(means) - 1) // 2)), keep="all")
    if len(lowest) > len(means) / 2:
        return "No class is clearly the hardest."
    named = ", ".join(f"{literal(name)} ({value:.3f})" for name, value in lowest.items())
    return f"Hardest, by the mean over all variants: {named}."


def confusions(pairs: pd.DataFrame) -> str:
    """The pairs of classes that are confused most, unless too many tie."""
    most = int(pairs["images"].max())
    first = pairs[pairs["images"] == most]
    if most == 0:
        return "It confuses no two classes."
    if len(first) > 3:
        return f"No pair of classes stands out: several are confused in {most} of the images each."
    named = "; ".join(f"{literal(row.one)} and {literal(row.other)}" for row in first.itertuples())
    return f"It confuses these most: {named}, {most} image{'s' * (most != 1)}{' each' * (len(first) > 1)}."
