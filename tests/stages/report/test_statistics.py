"""Intervals and tests against published examples, and the bootstrap against what it should find."""

import sys

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.report.statistics import Resampled, holm, mcnemar, wilson

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test draws the same numbers, whatever ran before it."""
    monkeypatch.setattr(sys.modules[__name__], "RANDOM", np.random.default_rng(0))


def resampled(images: int, **accuracies: list[float]) -> Resampled:
    """Models that are right at random; a list has the accuracy of each seed of a variant."""
    columns = {
        (name, seed): RANDOM.random(images) < accuracy
        for name, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
    }
    return Resampled(pd.DataFrame(columns).rename_axis(columns=["variant", "seed"]))


def test_interval_is_that_of_newcombes_example() -> None:
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def pair(better: int, worse: int, same: int) -> tuple[pd.Series, pd.Series]:
    """Whether two models are right: one alone, the other alone, both."""
    counts = [better, worse, same]
    return pd.Series(np.repeat([True, False, True], counts)), pd.Series(
        np.repeat([False, True, True], counts)
    )


def test_mcnemar_is_the_sign_test_of_the_images_on_which_two_models_differ() -> None:
    assert mcnemar(*pair(16, 6, 100)) == pytest.approx(0.05248, abs=1e-5)
    assert mcnemar(*pair(0, 0, 100)) == 1


def test_holm_corrects_the_smallest_most() -> None:
    found = holm(pd.Series({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}))
    assert found.to_dict() == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_the_interval_of_a_difference_is_as_wide_as_images_and_seeds_make_it() -> None:
    found = resampled(5000, good=[0.8], bad=[0.7], mixed=[0.6, 0.7, 0.8])
    difference, low, high = found.difference("good", "bad")
    right = found.right
    deviation = (right["good"][0].astype(int) - right["bad"][0].astype(int)).std() / np.sqrt(5000)
    assert difference == pytest.approx(0.1, abs=0.03)
    assert (high - low) / deviation == pytest.approx(2 * 1.96, rel=0.1)
    difference, low, high = found.difference("good", "mixed")
    assert high - low > 0.1 * 2 * 1.96 / np.sqrt(3) * 0.7


def test_the_best_of_many_equal_models_is_overstated_and_a_single_one_is_not() -> None:
    many = resampled(1000, **{f"v{number}": [0.5] for number in range(20)})
    assert 0.5 * 0.0295 < many.overstatement() < 1.5 * 0.0295  # the mean of the best of 20 is 1.87 sd
    assert abs(resampled(1000, one=[0.5]).overstatement()) < 0.001


def test_a_difference_is_real_if_interval_and_test_agree() -> None:
    found = resampled(5000, best=[0.8, 0.8], near=[0.799, 0.799], far=[0.7, 0.7])
    table = found.compare(("best", 0), {"near": 0, "far": 1})
    assert table["real"].to_dict() == {"near": False, "far": True}
    assert (table["low"] < table["difference"]).all()
    assert (table["difference"] < table["high"]).all()
