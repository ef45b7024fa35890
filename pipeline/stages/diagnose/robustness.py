"""A model's accuracy on corrupted images."""

import numpy as np
import pandas as pd

from pipeline.core import prediction
from pipeline.core.backend import keras
from pipeline.stages.diagnose.corruptions import CORRUPTIONS, Corruption

CHUNK = 200  # images, for the memory


def robustness(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The accuracy on uint8 images (n, height, width, 3) with each corruption at each strength.

    A row each: `corruption`, `level` from 0, unchanged, to 5, `strength` in the corruption's own unit,
    `accuracy`, and the number of `images`.
    """
    predict = prediction.predictor(model)

    def accuracy(corruption: Corruption | None = None, strength: float = 0) -> float:
        chunks = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
        changed = (corruption.function(chunk, strength) if corruption else chunk for chunk in chunks)
        predicted = np.concatenate([predict(chunk).argmax(axis=1) for chunk in changed])
        return float((predicted == labels).mean())

    unchanged, rows = accuracy(), []
    for name, corruption in CORRUPTIONS.items():
        rows.append((name, 0, float("nan"), unchanged))
        for level, strength in enumerate(corruption.strengths, 1):
            rows.append((name, level, strength, accuracy(corruption, strength)))
    table = pd.DataFrame(rows, columns=["corruption", "level", "strength", "accuracy"])
    return table.assign(images=len(images))
