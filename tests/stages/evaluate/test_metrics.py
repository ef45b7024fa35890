"""Scores of predictions, by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline.shared import metrics
from pipeline.shared.served_predictor import Temperature

CLASSES = ["cat", "dog", "frog"]
LABELS = np.array([0, 1, 2, 2], np.int64)
PROBABILITIES = np.array(  # the third image, a frog, is taken for a cat
    [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]], np.float32
)


def test_scores_of_four_images_are_those_by_hand() -> None:
    expected = {
        "loss": -(np.log(0.7) + np.log(0.6) + np.log(0.25) + np.log(0.5)) / 4,
        "accuracy": 3 / 4,
        "balanced_accuracy": (1 + 1 + 1 / 2) / 3,
        "auc_macro": (1 + 1 + 3 / 4) / 3,
        "precision_macro": (1 / 2 + 1 + 1) / 3,
        "recall_macro": (1 + 1 + 1 / 2) / 3,
        "f1_macro": (2 / 3 + 1 + 2 / 3) / 3,
        "precision_weighted": (1 / 2 + 1 + 2 * 1) / 4,
        "recall_weighted": (1 + 1 + 2 * 1 / 2) / 4,
        "brier": (0.14 + 0.26 + (0.25 + 0.0625 + 0.5625) + (0.04 + 0.09 + 0.25)) / 4,
        "calibration_error": (0.3 + 0.4 + 0.5 + 0.5) / 4,
        "f1_weighted": (2 / 3 + 1 + 2 * 2 / 3) / 4,
    }
    found = metrics.scores(LABELS, PROBABILITIES)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_cross_entropy_of_the_documents_example_is_as_published() -> None:
    nats = metrics.cross_entropy(np.array([1]), np.array([[0.6302056, 0.3697944]], np.float32))
    assert nats.dtype == np.float64
    assert nats == pytest.approx([0.9948081], abs=5e-8)


def test_perfect_predictions_score_one_and_impossible_ones_have_a_finite_loss() -> None:
    labels = np.array([0, 1, 2, 0])
    found = metrics.scores(labels, np.eye(3, dtype=np.float32)[labels])
    assert [found[name] for name in ("loss", "brier", "calibration_error")] == [0, 0, 0]
    assert {found[f"{name}_macro"] for name in ("auc", "precision", "recall", "f1")} == {1.0}
    nats = metrics.cross_entropy(np.array([0]), np.array([[0, 1]], np.float32))
    assert 80 < nats[0] < np.inf  # the most that float32 distinguishes from 0: some 87 nats


def test_bins_hold_equally_many_images_the_least_confident_first() -> None:
    labels = np.arange(500) % 4
    predicted = np.random.default_rng(0).dirichlet(np.ones(4), size=500)
    bins = metrics.reliability(labels, predicted)
    assert bins["images"].tolist() == [34, 33, 33] * 5
    assert bins["confidence"].is_monotonic_increasing
    assert np.average(bins["accuracy"], weights=bins["images"]) == metrics.accuracy(labels, predicted)


def test_the_temperatures_effect_is_that_on_the_scores() -> None:
    table = metrics.temperature_effect(LABELS, PROBABILITIES, Temperature(2, 1.5, 2.5))
    changed = np.sqrt(PROBABILITIES.astype(float))
    changed /= changed.sum(axis=1, keepdims=True)
    for row, probabilities in zip(table.to_dict("records"), (PROBABILITIES, changed), strict=True):
        scores = metrics.scores(LABELS, probabilities)
        assert {name: row[name] for name in ("loss", "brier", "calibration_error")} == pytest.approx(
            {name: scores[name] for name in ("loss", "brier", "calibration_error")}
        )
    assert table["temperature"].tolist() == [1, 2]


def test_coverage_counts_what_is_answered_and_what_of_it_is_right() -> None:
    table = metrics.coverage(LABELS, PROBABILITIES, 0.55)
    assert table.to_dict("list") == {
        "threshold": [0, 0.5, 0.55, 0.6, 0.7],
        "coverage": [1, 1, 0.5, 0.5, 0.25],
        "accuracy": [0.75, 0.75, 1, 1, 1],
        "served": [False, False, True, False, False],
    }


def test_class_that_is_never_predicted_scores_zero_without_a_warning() -> None:
    never_frog = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], np.float32)
    assert list(metrics.per_class(LABELS, never_frog, CLASSES).loc["frog"])[:3] == [0, 0, 0]
    assert metrics.scores(LABELS, never_frog)["precision_macro"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("name", ["cat", "accuracy", "macro avg"])  # two are rows of scikit-learn's report
def test_per_class_has_a_row_for_each_class(name: str) -> None:
    table = metrics.per_class(LABELS, PROBABILITIES, [name, "dog", "frog"])
    assert table.index.tolist() == [name, "dog", "frog"]
    assert table.index.name == "class"
    assert list(table.columns) == ["precision", "recall", "f1", "support", "auc"]
    assert list(table.loc[name]) == pytest.approx([1 / 2, 1, 2 / 3, 1, 1])
    assert list(table.loc["frog"]) == pytest.approx([1, 1 / 2, 2 / 3, 2, 3 / 4])
    assert table["support"].dtype.kind == "i"


def test_confusion_has_a_row_for_each_actual_class() -> None:
    counts = metrics.confusion(LABELS, PROBABILITIES, CLASSES)
    assert counts.index.name == "actual"
    assert (counts.index.tolist(), counts.columns.tolist()) == (CLASSES, CLASSES)
    assert counts.to_numpy().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("pairs", [1, 2, 10])
def test_most_confused_counts_both_ways_and_has_the_worst_pair_first(pairs: int) -> None:
    counts = pd.DataFrame([[9, 1, 4], [2, 9, 0], [5, 3, 9]], index=CLASSES, columns=CLASSES)
    expected = [
        {"one": "frog", "other": "cat", "images": 9, "one_as_other": 5, "other_as_one": 4},
        {"one": "dog", "other": "cat", "images": 3, "one_as_other": 2, "other_as_one": 1},
        {"one": "frog", "other": "dog", "images": 3, "one_as_other": 3, "other_as_one": 0},
    ]
    assert metrics.most_confused(counts, pairs).to_dict("records") == expected[:pairs]


def test_roc_points_rise_from_rate_0_to_1_and_enclose_the_area() -> None:
    points = metrics.roc_points(LABELS, PROBABILITIES, CLASSES)
    for area, (_, curve) in zip((1, 1, 3 / 4), points.groupby("class", sort=False), strict=True):
        false, true = curve["false_positive_rate"], curve["true_positive_rate"]
        assert (len(curve), false.iloc[0], false.iloc[-1], true.iloc[-1]) == (100, 0, 1, 1)
        assert true.is_monotonic_increasing
        assert np.trapezoid(true, false) == pytest.approx(area, abs=0.02)
