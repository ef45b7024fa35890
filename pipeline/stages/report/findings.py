"""What the comparison shows, in sentences that agree with the numbers."""

from collections.abc import Iterator

import pandas as pd

from pipeline.stages.report.markdown import literal
from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import wilson

NOISE = 0.015  # differences of one run to one published run within this much are noise
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
            change, low, high = results.validation.difference(one, other)
            verdict = "better" if low > 0 else "worse" if high < 0 else "which may be chance"
            yield (
                f"**{title}**: `{one}` {table['validation'][one]:.4f}, `{other}` "
                f"{table['validation'][other]:.4f} on validation images: {100 * change:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f}), {verdict}."
            )
    if len(table) >= CORRELATED and table["parameters"].nunique() > 1 and table["validation"].nunique() > 1:
        size = float(table["parameters"].corr(table["validation"], method="spearman"))
        yield (
            f"**Size**: the rank correlation of parameters and validation accuracy is {size:+.2f} "
            f"({len(table)} variants)."
        )


def overfitting(table: pd.DataFrame, images: int) -> str:
    """Whose training accuracy exceeds the interval of its validation accuracy, and the widest gap."""
    gap = (table["training_accuracy"] - table["validation"]).sort_values(ascending=False, kind="stable")
    highest = [wilson(accuracy, images)[1] for accuracy in table["validation"]]
    count = int((table["training_accuracy"] > highest).sum())
    if not count:
        return "**Over-fitting**: no training accuracy exceeds the interval of the validation accuracy."
    first = table.loc[gap.index[0]]
    figures = (
        f"{first['training_accuracy']:.3f} in the last epoch, {first['validation']:.3f} on validation images"
    )
    return (
        f"**Over-fitting**: training accuracy exceeds the interval of validation accuracy for {count} of "
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
