"""Temperature scaling: what it never changes, and how it is fitted."""

import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from pipeline.shared import temperature
from pipeline.shared.served_predictor import COLDEST, HOTTEST, fit
from pipeline.shared.temperature import SMALLEST, scaled

# Ties, zeros, subnormal numbers, neighbours in float32, and any others.
NEAR = np.float32(0.5)
VALUES = st.sampled_from([0, 1e-45, 1e-40, SMALLEST, NEAR, np.nextafter(NEAR, 1), 1 - 2**-24, 1]) | st.floats(
    0, 1, width=32
)


@given(arrays(np.float32, (3, 4), elements=VALUES), st.floats(COLDEST, HOTTEST))
def test_no_temperature_changes_the_class_or_the_order(rows: np.ndarray, by: float) -> None:
    rows[:, 1] = NEAR  # as in all rows of probabilities, one is not small
    changed = scaled(rows, by)
    assert (changed.argmax(axis=1) == rows.argmax(axis=1)).all()
    for row, new in zip(rows, changed, strict=True):
        ordered = new[row.argsort(kind="stable")]
        assert (np.diff(ordered) >= 0).all()
        assert all(new[row == value].max() == new[row == value].min() for value in row)
    assert by == 1 or changed.sum(axis=1) == pytest.approx(1)


def test_logits_are_divided() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    powers = np.exp(logits)
    assert scaled(powers / powers.sum(axis=1, keepdims=True), 3) == pytest.approx(expected)
    assert (scaled(powers.astype(np.float32), 1) == powers.astype(np.float32)).all()  # none at all
    assert runpy.run_path(str(temperature.__file__))["scaled"]  # the served model runs a copy


def predicted(
    random: np.random.Generator, images: int, sharpness: float, true: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of ten classes from which a temperature of `true` makes honest ones."""
    honest = scaled(np.exp(random.normal(scale=sharpness, size=(images, 10))), 1.0)
    honest /= honest.sum(axis=1, keepdims=True)
    labels = (honest.cumsum(axis=1) > random.random((images, 1))).argmax(axis=1)
    return labels, scaled(honest, 1 / true).astype(np.float32)


@pytest.mark.parametrize("true", [0.5, 2.0])
def test_the_temperature_that_made_probabilities_wrong_is_found(true: float) -> None:
    """On average over samples, and the interval holds it in 95 % of them (180 of 200: three sd below)."""
    random = np.random.default_rng(0)
    fits = [fit(*predicted(random, 500, 2, true)) for _ in range(200)]
    assert np.mean([found.best for found in fits]) == pytest.approx(true, rel=0.03)
    assert sum(found.low < true < found.high for found in fits) >= 180


def loss(labels: np.ndarray, rows: np.ndarray) -> float:
    """The cross-entropy."""
    return float(-temperature.log(rows[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("sharpness", [3, 10, 30])
def test_few_images_or_none_that_is_wrong_cost_almost_nothing(sharpness: float) -> None:
    """The loss of honest probabilities on new images rises by what a fitted number costs: 1 / (2 n) = .01."""
    random, rises = np.random.default_rng(0), []
    for _ in range(50):
        found = fit(*predicted(random, 50, sharpness, 1))
        labels, rows = predicted(random, 2000, sharpness, 1)
        rises.append(loss(labels, scaled(rows, found.best)) - loss(labels, rows))
    assert np.mean(rises) < 0.015
    labels, rows = predicted(random, 144, 30, 1)
    found = fit(rows.argmax(axis=1), rows)  # all predicted right
    assert 0.2 < found.best < 1
    assert found.low < found.best < found.high


def test_validation_images_that_are_all_predicted_right_promise_nothing_of_others() -> None:
    """Of digits: the lowest temperature fits them best, and makes the loss of others ten times as high."""
    images, labels = load_digits(return_X_y=True)
    validation = slice(300, 360)
    others, own = np.delete(images, validation, axis=0), np.delete(labels, validation)
    model = LogisticRegression(C=0.04, max_iter=5000).fit(others[800:], own[800:])
    predicted, tested = (model.predict_proba(these) for these in (images[validation], others[:800]))
    assert (predicted.argmax(axis=1) == labels[validation]).all()
    found = fit(labels[validation], predicted)
    assert loss(own[:800], scaled(tested, found.best)) < 1.05 * loss(own[:800], tested)
    assert loss(own[:800], scaled(tested, COLDEST)) > 10 * loss(own[:800], tested)
