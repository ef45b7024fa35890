"""Reads stored probabilities, and checks that they are of the model and that the stored scores are theirs."""

import math
from collections.abc import Callable, Collection

import numpy as np

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.support.digests import file_digest
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED

Measured = Callable[[np.ndarray, np.ndarray], dict[str, float]]

ROUNDING = 1e-6  # by which another processor's sums may differ


def read_probabilities(
    files: ModelFiles, part: str, views: str | None = None, model_digest: str | None = None
) -> np.ndarray:
    """A model's probabilities for a part of the images, memory-mapped, (n, classes).

    With `views`, their mean over these test-time views. Raises PipelineError if they are not of the model
    with this digest, by default the one in its file, or not numbers from 0 to 1, a row for each image.
    """
    if read_facts(files.predictions).get("model_digest") != (model_digest or file_digest(files.model)):
        raise PipelineError(f"{files.predictions}: not of {files.model}: run `dvc repro evaluate`")
    facts = read_facts(PREPARED / "split")
    shape = (facts["counts"][part], len(facts["classes"]))
    name = f"{part}_{views}" if views else part
    stored = read_arrays(files.predictions).get(name, np.empty(0))
    if stored.shape != shape or not ((stored >= 0) & (stored <= 1)).all():
        raise PipelineError(
            f"{files.predictions / name}.npy: expected probabilities {shape}; received {stored.dtype} "
            f"{stored.shape}: run `dvc repro` to make it again"
        )
    return stored


def read_right(files: ModelFiles, part: str) -> np.ndarray:
    """Whether a model is right about each image of a part, bool (n,)."""
    labels: np.ndarray = read_arrays(PREPARED / part)["labels"]
    return np.asarray(read_probabilities(files, part).argmax(axis=1) == labels)


def views_of(files: ModelFiles) -> str | None:
    """The test-time views that a model was predicted with, beside the image alone; None if there are none."""
    return next((name.partition("_")[2] for name in read_arrays(files.predictions) if "_" in name), None)


def accuracy_alone(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The accuracy, for `checked_scores`."""
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
    measured: Measured = accuracy_alone,
    model_digest: str | None = None,
    images: Collection[str] = ("validation", "test"),
) -> dict[str, dict[str, float]]:
    """A model's stored scores of these parts of the images, as far as `measured` finds the same.

    `measured` takes labels (n,) and probabilities (n, classes). Empty if the training diverged. Raises
    PipelineError if a score is not that of the stored probabilities, or these are not of the model with this
    digest, by default the one in its file. Reads nothing of other images.
    """
    stored = files.metrics()  # first, so an evaluation that ends meanwhile cannot mix two models
    checked = {}
    for part in [part for part in stored if part.partition("_")[0] in images]:
        name, _, views = part.partition("_")
        probabilities = read_probabilities(files, name, views or None, model_digest)
        found = measured(read_arrays(PREPARED / name)["labels"], probabilities)
        checked[part] = {key: stored[part].get(key, math.nan) for key in found}
        for key, value in checked[part].items():
            if not math.isclose(value, found[key], rel_tol=ROUNDING, abs_tol=ROUNDING):
                raise PipelineError(
                    f"{files.scores}: {part} {key} {value}, but {files.predictions} gives {found[key]}: "
                    "run `dvc repro evaluate`"
                )
    return checked
