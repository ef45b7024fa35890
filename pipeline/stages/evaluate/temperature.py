"""Temperature scaling: probabilities that are neither over- nor under-confident.

As in Guo et al., On Calibration of Modern Neural Networks (2017). The most probable class stays the same.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from pipeline.shared import metrics

COLDEST, HOTTEST = 0.05, 20.0


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes), float64, of the same model with its logits divided by a temperature."""
    logits = np.log(np.maximum(probabilities, metrics.SMALLEST, dtype=np.float64))
    return np.asarray(softmax(logits / temperature, axis=1))


def fit(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy: above 1 for an over-confident model."""
    found = minimize_scalar(
        lambda logarithm: metrics.loss(labels, scaled(probabilities, np.exp(logarithm))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def effect(temperature: float, labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The scores that a temperature changes: without it in the first row, with it in the second."""
    functions = (metrics.loss, metrics.brier, metrics.calibration_error)
    both = (probabilities, scaled(probabilities, temperature))
    rows = [{one.__name__: one(labels, changed) for one in functions} for changed in both]
    return pd.DataFrame(rows).assign(temperature=[1.0, temperature])
