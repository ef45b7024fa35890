"""Intervals and differences of accuracies on a limited number of images, and the winner's curse."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import binomtest

RESAMPLES = 2000
LEVEL = 0.95


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy on so many images (Wilson, 1927)."""
    found = binomtest(round(accuracy * images), images).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(one: pd.Series, other: pd.Series) -> float:
    """The p-value of the difference between two models, exact (McNemar, 1947).

    `one` and `other` say for each image whether a model is right.
    """
    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def holm(probabilities: pd.Series) -> pd.Series:
    """Probabilities of several comparisons, corrected for their number (Holm, 1979)."""
    ordered = probabilities.sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return corrected.reindex(probabilities.index)


@dataclass(frozen=True)
class Resampled:
    """Whether each model is right about each image, and bootstrap samples of that (Efron, 1979).

    `right` has a row for each image and a column for each (variant, seed). A sample draws images, the same
    for all models, and seeds of each variant.
    """

    right: pd.DataFrame

    @cached_property
    def models(self) -> pd.DataFrame:
        """Each model's accuracy on RESAMPLES draws of the images."""
        random, images = np.random.default_rng(0), len(self.right)
        values = self.right.to_numpy(np.float32)
        draws = (
            np.bincount(random.integers(images, size=images), minlength=images) for _ in range(RESAMPLES)
        )
        return pd.DataFrame([drawn @ values / images for drawn in draws], columns=self.right.columns)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """Each variant's mean accuracy over draws of the images and of its seeds."""
        random, means = np.random.default_rng(1), {}
        for name in self.right.columns.unique("variant"):
            seeds = self.models[name].to_numpy()
            drawn = random.integers(len(seeds.T), size=(len(seeds), len(seeds.T)))
            means[name] = np.take_along_axis(seeds, drawn, axis=1).mean(axis=1)
        return pd.DataFrame(means)

    def difference(self, one: str, other: str) -> tuple[float, float, float]:
        """The difference of two variants' mean accuracies, and the ends of its 95 % interval."""
        means = self.right.mean().groupby("variant").mean()
        low, high = np.quantile(self.variants[one] - self.variants[other], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(means[one] - means[other]), float(low), float(high)

    def compare(self, chosen: tuple[str, int], others: dict[str, int]) -> pd.DataFrame:
        """The chosen variant and seed against each other variant and its best seed; a row for each.

        `difference`, `low` and `high` are those of the variants' means. `p` is McNemar's of the two models,
        after Holm's correction. A difference is `real` if p is below 5 % and the interval excludes zero.
        """
        rows = [
            (*self.difference(chosen[0], name), mcnemar(self.right[chosen], self.right[name, seed]))
            for name, seed in others.items()
        ]
        table = pd.DataFrame(rows, index=list(others), columns=["difference", "low", "high", "p"])
        table["p"] = holm(table["p"])
        return table.assign(real=(table["p"] < 1 - LEVEL) & ((table["low"] > 0) | (table["high"] < 0)))

    def overstatement(self) -> float:
        """By how much the accuracy of the chosen model exceeds what it would be on other images.

        Choosing the best of several models is optimistic: this is the mean, over the samples, of the best
        model's accuracy less its accuracy on all images.
        """
        means, actual = self.models.T.groupby("variant", sort=False).mean().T, self.right.mean()
        gains = []
        for (_, sample), name in zip(self.models.iterrows(), means.idxmax(axis=1), strict=True):
            chosen = (name, sample[name].idxmax())
            gains.append(sample[chosen] - actual[chosen])
        return float(np.mean(gains))
