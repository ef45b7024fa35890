"""Find suspicious labels by confident learning (Northcutt, Jiang and Chuang, 2021)."""

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues


def label_errors(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Images whose labels (n,) a model's probabilities (n, classes) contradict, the most suspicious first.

    The model must not have been trained on them. A row for each: its number, `image`, its `label`, what is
    `predicted`, and the label's `probability`.
    """
    rows = find_label_issues(
        labels, np.asarray(probabilities), return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return pd.DataFrame(
        {
            "image": rows,
            "label": labels[rows],
            "predicted": probabilities[rows].argmax(axis=1),
            "probability": probabilities[rows, labels[rows]],
        }
    )
