"""How a model's accuracy falls as images get worse."""

import numpy as np
import pandas as pd

from pipeline.diagnosis.corruptions import CORRUPTIONS
from pipeline.learning import model_file
from pipeline.learning.backend import keras

CHUNK = 200  # images, for the memory


def robustness(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The accuracy on uint8 images (n, height, width, 3) with each corruption at each strength.

    A row each: `corruption`, `level` from 0, unchanged, to 5, `strength` in the corruption's own unit,
    `accuracy`, and the number of `images`.
    """
    predict, rows = model_file.predictor(model), []
    for name, corruption in CORRUPTIONS.items():
        for level, strength in enumerate((None, *corruption.strengths)):
            right = 0
            for start in range(0, len(images), CHUNK):
                part = slice(start, start + CHUNK)
                changed = images[part] if strength is None else corruption.function(images[part], strength)
                right += int((predict(changed).argmax(axis=1) == labels[part]).sum())
            rows.append((name, level, strength, right / len(images), len(images)))
    return pd.DataFrame(rows, columns=["corruption", "level", "strength", "accuracy", "images"])
