"""Intervals of accuracies, and of all differences between them at once, with few images and seeds."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import binomtest, studentized_range

LEVEL = 0.95
FREEDOM = np.array([*range(1, 31), 40, 60, 120, 1_000])  # the degrees of freedom of printed tables


def wilson(accuracy: float, images: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of an accuracy on so many images (Wilson, 1927), by default the 95 % one."""
    found = binomtest(round(accuracy * images), images).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def gap(one: tuple[float, int], other: tuple[float, int], level: float = LEVEL) -> tuple[float, float]:
    """The interval of the difference of two accuracies on different images (Newcombe, 1998).

    Each is given with its number of images.
    """
    (p, _), (q, _) = one, other
    (p_low, p_high), (q_low, q_high) = (wilson(*each, level) for each in (one, other))
    return p - q - np.hypot(p - p_low, q_high - q), p - q + np.hypot(p_high - p, q - q_low)


@dataclass(frozen=True)
class Differences:
    """The differences between all pairs of `groups` groups, rows less columns, and their standard errors.

    Their intervals hold at once for all pairs (Tukey and Kramer, Games and Howell, 1976), so they hold
    whichever groups are compared, the best with all others, too.
    """

    points: np.ndarray  # (groups, groups), as are the other two
    errors: np.ndarray
    freedom: np.ndarray  # the degrees of freedom of `errors`

    @property
    def groups(self) -> int:
        """The number of groups."""
        return len(self.points)

    @cached_property
    def reach(self) -> np.ndarray:
        """Half the width of each interval: the smallest difference that would not be put down to chance."""
        listed, places = np.unique(rounded_down(self.freedom), return_inverse=True)
        factors = np.array([critical(self.groups, freedom) for freedom in listed.tolist()])
        return factors[places].reshape(self.errors.shape) * self.errors

    def probability(self, one: int, other: int) -> float:
        """The p-value of a difference, corrected for the number of pairs."""
        ratio = abs(self.points[one, other]) / self.errors[one, other] * np.sqrt(2)
        freedom = rounded_down(self.freedom)[one, other]
        return float(np.clip(studentized_range.sf(ratio, self.groups, freedom), 0, 1))


def rounded_down(freedom: np.ndarray) -> np.ndarray:
    """Degrees of freedom as a printed table lists them, the next lower one."""
    return np.asarray(FREEDOM[np.searchsorted(FREEDOM, freedom + 1e-9).clip(min=1) - 1])


@cache
def critical(groups: int, freedom: int) -> float:
    """How many standard errors apart the two extremes of so many equal groups are in 5 % of cases."""
    return float(studentized_range.ppf(LEVEL, groups, freedom) / np.sqrt(2))


def moderated(variances: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances of groups, each drawn towards what they have in common, and their degrees of freedom.

    An empirical Bayes estimate (Smyth, 2004), since a few values tell a variance badly: the pooled variance
    if the groups vary alike; the more they differ, the more each keeps its own. A group whose `freedom` is 0
    has the pooled one.
    """
    known, total = freedom > 0, freedom.sum()
    pooled, half = variances @ freedom / total, freedom[known] / 2
    logarithms = np.log(variances[known]) - digamma(half) + np.log(half)
    excess = logarithms.var(ddof=1) - polygamma(1, half).mean() if known.sum() > 1 else 0
    if excess <= 0:
        return np.full(len(variances), pooled), np.full(len(variances), total)
    prior = brentq(lambda x: polygamma(1, x) - excess, 1e-6, 1e9)  # half of its degrees of freedom
    common = np.exp(logarithms.mean() + digamma(prior) - np.log(prior))
    both = 2 * prior + freedom
    drawn = np.where(known, (2 * prior * common + freedom * variances) / both, pooled)
    return drawn, both.clip(min=1, max=total)


def differences(
    means: np.ndarray,
    covariance: np.ndarray,
    images: int,
    within: np.ndarray,
    between: np.ndarray,
    seeds: np.ndarray,
) -> Differences:
    """The differences between variants, from the analysis of random seeds on random images.

    For each variant: its mean over seeds and images, the `covariance` over images of its mean over seeds, the
    variance over seeds `within` an image, on average, that of its accuracies `between` seeds, and its number
    of seeds. If no variant has several, the differences are those of the models. As in the comparison of
    readers and cases (Obuchowski and Rockette, 1995), with Satterthwaite's degrees of freedom.

    This takes variants to vary alike over seeds, more or less. If one varies ten times as much as most, more
    than 5 % of reports call a difference real that is none (tests/stages/report/test_statistics.py).
    """
    diagonal = covariance.diagonal()
    of_images = diagonal[:, None] + diagonal - 2 * covariance + 2 / (images + 2)  # Bonett and Price, 2012
    of_images = (of_images - pairs(within / seeds)).clip(min=0) / images
    if (seeds == 1).all():
        return Differences(means[:, None] - means, np.sqrt(of_images), np.full_like(of_images, images - 1))
    observed = at_least(between, within, images)
    own, freedom = moderated(observed, seeds - 1)
    own = np.maximum(own, observed)  # or the means of a variant that varies a lot would seem well known
    of_seeds = pairs(own / seeds)
    seeds_freedom = (of_seeds**2 / pairs((own / seeds) ** 2 / freedom)).clip(max=(seeds - 1).sum())
    square = of_seeds + of_images
    freedom = square**2 / (of_seeds**2 / seeds_freedom + of_images**2 / (images - 1))
    return Differences(means[:, None] - means, np.sqrt(square), freedom)


def at_least(between: np.ndarray, within: np.ndarray, images: int) -> np.ndarray:
    """The variances `between` seeds, if these are not less by chance than different answers make them."""
    return np.maximum(between, (within + 1 / images) / images)


def pairs(values: np.ndarray) -> np.ndarray:
    """The sum of each pair of values."""
    return values[:, None] + values
