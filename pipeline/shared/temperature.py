"""Temperature scaling: probabilities that are neither over- nor under-confident.

As in Guo et al., On Calibration of Modern Neural Networks (2017). The served model carries a copy of this
file, so it imports nothing of the pipeline.
"""

import numpy as np

SMALLEST = float(np.finfo(np.float32).tiny)  # keeps the logarithm of a probability finite


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes), float64, of the same model with its logits divided by a temperature.

    The most probable class stays the same, and so does the order of the others.
    """
    if temperature == 1:
        return probabilities.astype(np.float64)
    logits = log(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log(probabilities: np.ndarray) -> np.ndarray:
    """Their logarithms, float64, which are finite."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST, dtype=np.float64)))
