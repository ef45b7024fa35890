"""How a model's accuracy falls as images get worse."""

import numpy as np
import pandas as pd

from pipeline.diagnosis.corruptions import CORRUPTIONS
from pipeline.learning import model_file
from pipeline.learning.backend import keras


def robustness(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The accuracy on uint8 images (n, height, width, 3) with each corruption at each strength.

    A row each: `corruption`, `level` from 0, as they are, to 5, `strength` in the corruption's own unit,
    `accuracy`, and the number of `images`.
    """
    changed, rows = [], []
    for name, corruption in CORRUPTIONS.items():
        for level, strength in enumerate((None, *corruption.strengths)):
            changed.append(images if strength is None else corruption.function(images, strength))
            rows.append((name, level, strength))
    predicted = model_file.probabilities(model, np.concatenate(changed)).argmax(axis=1)
    right = predicted.reshape(len(changed), len(images)) == labels
    table = pd.DataFrame(rows, columns=["corruption", "level", "strength"])
    return table.assign(accuracy=right.mean(axis=1), images=len(images))
