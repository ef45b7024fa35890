"""Which images each model gets right: the differences between variants, and the winner's curse."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline.stages.report.statistics import Differences, at_least, differences, moderated

DRAWS = 10_000


@dataclass(frozen=True)
class Correctness:
    """Whether each model, a column for each (variant, seed), is right about each image, a row."""

    right: pd.DataFrame

    @cached_property
    def seeds(self) -> pd.Series:
        """The number of seeds of each variant."""
        return self.right.columns.to_frame(index=False).groupby("variant", sort=False).size()

    @property
    def several_seeds(self) -> bool:
        """Whether any variant has more than one, which a verdict on variants needs."""
        return bool((self.seeds > 1).any())

    @cached_property
    def within(self) -> pd.Series:
        """For each variant, the variance over seeds of an image's correctness, in the mean over images."""
        share = self.by_variant  # of the seeds that are right
        return (share * (1 - share)).mean() * self.seeds / (self.seeds - 1).clip(lower=1)

    @cached_property
    def by_variant(self) -> pd.DataFrame:
        """The share of each variant's seeds that are right about an image."""
        return self.right.T.groupby("variant", sort=False).mean().T

    @cached_property
    def between(self) -> pd.Series:
        """For each variant, the variance of its accuracies over seeds; 0 for one seed."""
        return self.right.mean().groupby("variant", sort=False).var().fillna(0)

    @cached_property
    def differences(self) -> Differences:
        """The differences between all variants' mean accuracies."""
        share = self.by_variant
        return differences(
            share.mean().to_numpy(),
            np.cov(share.T.to_numpy()).reshape(len(self.seeds), -1),
            len(share),
            self.within.to_numpy(),
            self.between.to_numpy(),
            self.seeds.to_numpy(),
        )

    @property
    def deviation(self) -> float:
        """The standard deviation of an accuracy over seeds, pooled over variants; NaN of one seed."""
        weights = self.seeds - 1
        return float(np.average(self.between, weights=weights) ** 0.5) if self.several_seeds else float("nan")

    def compare(self, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
        """A row for each pair of variants: the difference, its interval, and its p-value.

        The intervals and p-values hold at once for all pairs of variants. A difference is `real` if its
        interval excludes zero. With one seed, all this is about the models alone.
        """
        found = self.differences
        numbers = {name: number for number, name in enumerate(self.seeds.index)}
        places = [(numbers[one], numbers[other]) for one, other in pairs]
        points, reach = (
            np.array([values[place] for place in places]) for values in (found.points, found.reach)
        )
        return pd.DataFrame(
            {
                "difference": points,
                "low": points - reach,
                "high": points + reach,
                "p": [found.probability(*place) for place in places],
                "real": abs(points) > reach,
            },
            index=pd.MultiIndex.from_tuples(pairs, names=["one", "other"]),
        )

    def overstatement(self) -> float:
        """By how much the chosen model's accuracy would exceed what it is on other images, if all were equal.

        That is the most that choosing the best of these models can cost. With several seeds, it is what the
        variant would have with other seeds, too. Choosing is as in `select`: the variant with the best mean,
        then its best seed.
        """
        random, models = np.random.default_rng(0), self.right.columns
        noise = np.cov(self.right.T.to_numpy(float)).reshape(len(models), -1) / len(self.right)
        if self.several_seeds:
            freedom = (self.seeds - 1).to_numpy()
            images = len(self.right)
            own, _ = moderated(at_least(self.between.to_numpy(), self.within.to_numpy(), images), freedom)
            seed = pd.Series(own - self.within / images, self.seeds.index)  # without what images add
            noise = noise + np.diag(seed.clip(lower=0)[models.get_level_values("variant")])
        draws = random.multivariate_normal(np.zeros(len(models)), noise, DRAWS, method="eigh")
        drawn = pd.DataFrame(draws, columns=models)
        best = drawn.T.groupby("variant", sort=False).mean().idxmax()
        chosen = models.get_level_values("variant").to_numpy() == best.to_numpy()[:, None]
        return float(np.where(chosen, draws, -np.inf).max(axis=1).mean())
