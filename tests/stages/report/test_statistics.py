"""Intervals against published examples and in simulation: how often they are wrong, what they can show."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from pipeline.stages.report.correctness import Correctness
from pipeline.stages.report.statistics import Differences, differences, gap, moderated, wilson

TIMES, VARIANTS, IMAGES = 1000, 12, 10_000
SEED = 0.009  # the standard deviation of an accuracy over seeds, as in docs/results.md
WITHIN, APART = 0.1, 0.003  # the variance of an image over seeds; the sd of a variant's accuracy over images


def correctness(images: int, **accuracies: list[float]) -> Correctness:
    """Models that are right at random; a list has the accuracy of each seed of a variant."""
    random = np.random.default_rng(0)
    columns = {
        (name, seed): random.random(images) < accuracy
        for name, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    }
    return Correctness(pd.DataFrame(columns).rename_axis(columns=["variant", "seed"]))


def drawn(
    random: np.random.Generator, seeds: int, deviation: float | np.ndarray, better: float = 0
) -> Differences:
    """The differences between equal variants, or a better first one, on random images and seeds."""
    accuracies = (
        random.normal(0, 1, (VARIANTS, seeds)) * np.resize(deviation, (VARIANTS, 1))
        + random.normal(0, np.sqrt(WITHIN / IMAGES), (VARIANTS, seeds))
        + random.normal(0, APART, (VARIANTS, 1))
    )
    accuracies[0] += better
    several = np.full(VARIANTS, float(seeds > 1))
    return differences(
        accuracies.mean(axis=1),
        np.diag(np.full(VARIANTS, APART**2 * IMAGES + WITHIN / seeds)),
        IMAGES,
        several * WITHIN,
        several * accuracies.var(axis=1, ddof=min(1, seeds - 1)),
        np.full(VARIANTS, seeds),
    )


@pytest.mark.parametrize(("seeds", "deviation"), [(1, 0), (2, SEED), (3, SEED), (5, SEED)])
def test_equal_variants_are_told_apart_in_at_most_5_percent_of_reports(seeds: int, deviation: float) -> None:
    """In any pair, so whichever is chosen, also the best; with one seed, of models that are equal."""
    random = np.random.default_rng(seeds)
    wrong, covered = 0, 0.0
    for _ in range(TIMES):
        found = drawn(random, seeds, deviation)
        missed = np.abs(found.points) > found.reach
        wrong += missed.any()
        covered += 1 - missed.sum() / (VARIANTS * (VARIANTS - 1))
    assert wrong / TIMES <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / TIMES)  # the simulation's own error
    assert covered / TIMES > 0.99


# The standard deviations over seeds in docs/results.md.
RECORDS = np.array([1.70, 1.28, 1.15, 0.76, 0.72, 0.65, 0.48, 0.37, 0.29, 0.21, 0.03, 5.16]) / 100


@pytest.mark.parametrize(("deviations", "most"), [(RECORDS[:11], 0.1), (RECORDS, 0.2)])
def test_variants_that_vary_unlike_are_told_apart_wrongly_more_often(
    deviations: np.ndarray, most: float
) -> None:
    random = np.random.default_rng(0)
    runs = [drawn(random, 3, deviations) for _ in range(TIMES // 2)]
    assert np.mean([(np.abs(found.points) > found.reach).any() for found in runs]) < most


@pytest.mark.parametrize(("seeds", "points", "least"), [(1, 3, 0.9), (2, 8, 0.9), (3, 5, 0.9), (5, 4, 0.9)])
def test_a_better_variant_is_told_from_the_others(seeds: int, points: float, least: float) -> None:
    random = np.random.default_rng(seeds)
    deviation = SEED if seeds > 1 else 0
    runs = [drawn(random, seeds, deviation, points / 100) for _ in range(100)]
    assert np.mean([(found.points > found.reach)[0, 1:] for found in runs]) > least


def test_images_and_seeds_are_told_apart_in_the_variance() -> None:
    """From raw answers: the error agrees with how much the difference varies from draw to draw."""
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        hard = random.normal(0.7, 0.25, 400).clip(0, 1)  # images of several difficulties
        columns = {
            (name, seed): random.random(400) < hard + random.normal(0, 0.03)
            for name in ("a", "b", "c", "d")
            for seed in range(3)
        }
        frame = pd.DataFrame(columns).rename_axis(columns=["variant", "seed"])
        result = Correctness(frame).differences
        found.append((result.points[0, 1], result.errors[0, 1]))
    points, errors = np.array(found).T
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(points.std(), rel=0.12)


def test_two_variants_without_image_noise_are_compared_by_a_t_test() -> None:
    accuracies = np.array([[0.70, 0.72, 0.71], [0.74, 0.75, 0.73]])
    nothing = np.zeros((2, 2))
    seeds = np.full(2, 3)
    found = differences(
        accuracies.mean(axis=1), nothing, 10**9, np.zeros(2), accuracies.var(axis=1, ddof=1), seeds
    )
    assert found.probability(0, 1) == pytest.approx(ttest_ind(*accuracies).pvalue, rel=0.01)


def test_one_interval_and_one_p_value_answer_one_question() -> None:
    made = correctness(5000, best=[0.8, 0.8, 0.81], near=[0.799, 0.8, 0.801], far=[0.7, 0.71, 0.7])
    table = made.compare([("best", "near"), ("best", "far"), ("near", "far")])
    means = made.right.mean().groupby("variant").mean()
    assert table["difference"].tolist() == pytest.approx([means[a] - means[b] for a, b in table.index])
    assert table["real"].tolist() == [False, True, True]
    assert (table["real"] == (table["p"] < 0.05)).all()
    assert (table["real"] == ((table["low"] > 0) | (table["high"] < 0))).all()


def test_models_that_are_right_about_the_same_images_have_an_interval() -> None:
    right = np.arange(300) % 3 > 0
    for seeds in (1, 2):
        columns = {(name, seed): right for name in "ab" for seed in range(seeds)}
        frame = pd.DataFrame(columns).rename_axis(columns=["variant", "seed"])
        [row] = Correctness(frame).compare([("a", "b")]).to_dict("records")
        assert (row["difference"], row["p"], row["real"]) == (0, 1, False)
        assert row["high"] > 0.005


def test_variances_that_are_alike_are_pooled_and_others_keep_their_own() -> None:
    alike, freedom = moderated(np.array([1.0, 1.2, 0.9]), np.array([2, 2, 2]))
    assert alike.tolist() == pytest.approx([3.1 / 3] * 3)
    assert freedom.tolist() == [6, 6, 6]
    apart, freedom = moderated(np.array([1e-8, 1e-4, 1.0, 0.0]), np.array([9, 9, 9, 0]))
    assert apart[:3] == pytest.approx([1e-8, 1e-4, 1.0], rel=0.2)
    assert (freedom[:3] < 10).all()
    assert apart[3] == pytest.approx(1 / 3, rel=0.01)  # of a variant with one seed: the pooled one


def test_interval_is_that_of_newcombes_example() -> None:
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_gap_is_that_of_newcombes_example() -> None:
    assert gap((56 / 70, 70), (48 / 80, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_best_of_sixteen_equal_models_is_overstated_by_1_77_standard_deviations() -> None:
    """1.36 points with a standard deviation of .77 points."""
    images = round(0.21 / 0.0077**2)
    many = correctness(images, **{f"v{number}": [0.7] for number in range(16)})
    assert many.overstatement() == pytest.approx(0.0136, rel=0.03)
    assert abs(correctness(1000, one=[0.5]).overstatement()) < 0.0005


def test_seeds_add_to_the_overstatement_and_the_best_seed_is_chosen_after_the_best_mean() -> None:
    random = np.random.default_rng(0)
    seeds = 0.7 + random.normal(0, 0.02, (16, 3))
    made = correctness(4000, **{f"v{number}": row.tolist() for number, row in enumerate(seeds)})
    noise = random.normal(0, made.deviation, (20_000, 16, 3))
    best = noise.mean(axis=2).argmax(axis=1)
    expected = noise[np.arange(len(noise)), best].max(axis=1).mean()
    assert made.overstatement() == pytest.approx(expected, rel=0.05)
