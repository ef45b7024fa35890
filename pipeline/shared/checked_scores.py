"""Checks that stored scores are those of the stored probabilities."""

import math
from collections.abc import Callable, Collection

import numpy as np

from pipeline.core.arrays import read_arrays
from pipeline.shared.served_predictor import Setting, served_predictor
from pipeline.shared.stored_probabilities import ROUNDING, read_probabilities
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import SCORED, SERVED, ModelFiles
from pipeline.support.paths import PREPARED

Measured = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def accuracy_alone(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The accuracy, which no temperature changes."""
    return {"accuracy": float((probabilities.argmax(axis=1) == labels).mean())}


def measured_by(metric: str) -> Measured:
    """The accuracy and this metric, for `checked_scores`."""
    if metric == "accuracy":
        return accuracy_alone
    from pipeline.shared.metrics import METRICS  # scikit-learn, which accuracy does not need

    function = METRICS[metric]
    return lambda labels, probabilities: (
        accuracy_alone(labels, probabilities) | {metric: float(function(labels, probabilities))}
    )


def checked_scores(
    files: ModelFiles,
    temperature: Setting = 1.0,
    measured: Measured = accuracy_alone,
    model_digest: str | None = None,
    names: Collection[str] = SCORED,
) -> dict[str, dict[str, float]]:
    """A model's stored scores of these names, as far as `measured` finds the same.

    `temperature` is serving.temperature of params.yaml, on which accuracies do not depend. `measured` takes
    labels (n,) and probabilities (n, classes). Empty if the training diverged. Raises PipelineError if a
    score is not that of the stored probabilities, or these are not of the model with this digest, by default
    the one in its file.
    """
    stored = files.metrics()  # first, so an evaluation that ends meanwhile cannot mix two models
    if not stored:
        return {}
    served, checked = served_predictor(files, temperature, model_digest), {}
    for name in names:
        part = name.removesuffix(SERVED)
        alone = part == name
        probabilities = (
            read_probabilities(files, part, None, model_digest) if alone else served.probabilities(part)
        )
        found = measured(read_arrays(PREPARED / part)["labels"], probabilities)
        checked[name] = {key: stored[name].get(key, math.nan) for key in found}
        for key, value in checked[name].items():
            if not math.isclose(value, found[key], rel_tol=ROUNDING, abs_tol=ROUNDING):
                raise PipelineError(
                    f"{files.scores}: {name} {key} {value}, but {files.predictions} gives {found[key]}: "
                    "run `dvc repro evaluate`"
                )
    return checked
