"""What a model predicts as it is served: means over its test-time views, scaled by a temperature.

All that describes a chosen model is measured on these probabilities: its scores, tables, figures and card,
and the trial of its version. Models are compared by `read_probabilities`, with one view and no temperature.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp

from pipeline.core.arrays import read_arrays
from pipeline.shared.stored_probabilities import read_probabilities, views_of
from pipeline.shared.temperature import log, scaled
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED

Setting = Literal["auto"] | float  # serving.temperature of params.yaml

COLDEST, HOTTEST = 0.05, 20.0
# How far a temperature's logarithm is expected from 0: a standard deviation. It only counts if validation
# images are few or all predicted right, which the lowest temperature fits best. With 50 images, an accuracy
# of .97 and honest probabilities, a fit without it costs .18 nats on new images, with it .002 (simulated).
SPREAD = 0.5
STEP = 0.01  # of the logarithm, for derivatives


@dataclass(frozen=True)
class Temperature:
    """A temperature, and its 95 % interval if it was fitted."""

    best: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class ServedPredictor:
    """A model with the test-time views and the temperature that it is served with."""

    files: ModelFiles
    views: str | None
    temperature: Temperature
    model_digest: str | None = None  # of the model that the probabilities must be of; default: the file's

    def unscaled(self, part: str) -> np.ndarray:
        """Its probabilities for a part of the images before the temperature, (n, classes)."""
        return read_probabilities(self.files, part, self.views, self.model_digest)

    def probabilities(self, part: str) -> np.ndarray:
        """Its probabilities for a part of the images, float64 (n, classes)."""
        return scaled(self.unscaled(part), self.temperature.best)

    def right(self, part: str) -> np.ndarray:
        """Whether it is right about each image of a part, bool (n,)."""
        labels: np.ndarray = read_arrays(PREPARED / part)["labels"]
        return np.asarray(self.unscaled(part).argmax(axis=1) == labels)


def served_predictor(files: ModelFiles, setting: Setting, model_digest: str | None = None) -> ServedPredictor:
    """A model as it is served with this setting; `auto` fits the temperature on validation images."""
    views = views_of(files)
    if setting != "auto":
        return ServedPredictor(files, views, Temperature(setting), model_digest)
    predicted = read_probabilities(files, "validation", views, model_digest)
    fitted = fit(read_arrays(PREPARED / "validation")["labels"], predicted)
    return ServedPredictor(files, views, fitted, model_digest)


def fit(labels: np.ndarray, probabilities: np.ndarray) -> Temperature:
    """The most likely temperature, above 1 for an over-confident model: see SPREAD.

    It makes no probabilities surer, on average, than `surest` allows. It is rounded, so that it is the same
    on all processors. The interval allows for a model whose probabilities no temperature makes right (a
    sandwich estimate).
    """
    logits = log(probabilities)
    of_label = logits[np.arange(len(labels)), labels]

    def losses(logarithm: float) -> np.ndarray:
        factor = np.exp(-logarithm)
        return np.asarray(logsumexp(factor * logits, axis=1) - factor * of_label)

    found = minimize_scalar(
        lambda logarithm: losses(logarithm).sum() + (logarithm / SPREAD) ** 2 / 2,
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
    ).x
    before, at, after = (losses(found + step) for step in (-STEP, 0, STEP))
    slopes, curvatures = (after - before) / (2 * STEP), (after - 2 * at + before) / STEP**2
    error = 1.96 * slopes.std() * len(labels) ** 0.5 / (curvatures.sum() + SPREAD**-2)
    best = max(found, np.log(surest(labels, probabilities)))
    return Temperature(
        *(round(float(np.exp(one)), 3) for one in (best, found - error, max(best, found + error)))
    )


def surest(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The lowest temperature, at most 1, at which the mean confidence is one that so many images support.

    That is an accuracy of (right + 1) / (n + 2), by Laplace's rule of succession. If all validation images
    are predicted right, the lowest temperature is the most likely, and a mistake on another one costs a lot.
    """
    right = (probabilities.argmax(axis=1) == labels).sum()

    def excess(temperature: float) -> float:
        confidence = scaled(probabilities, temperature).max(axis=1).mean()
        return float(confidence - (right + 1) / (len(labels) + 2))

    if excess(1) >= 0:
        return 1.0
    return float(brentq(excess, COLDEST, 1)) if excess(COLDEST) > 0 else COLDEST
