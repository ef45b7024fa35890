"""Reads stored probabilities, and checks that they are of the model."""

import numpy as np

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.support.digests import file_digest
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED

ROUNDING = 1e-6  # by which another processor's sums may differ


def read_probabilities(
    files: ModelFiles, part: str, views: str | None = None, model_digest: str | None = None
) -> np.ndarray:
    """A model's probabilities for a part of the images (of `train`, the first), memory-mapped, (n, classes).

    With `views`, their mean over these test-time views. Raises PipelineError if they are not of the model
    with this digest, by default the one in its file, or not numbers from 0 to 1, a row for each image.
    """
    if read_facts(files.predictions).get("model_digest") != (model_digest or file_digest(files.model)):
        raise PipelineError(f"{files.predictions}: not of {files.model}: run `dvc repro evaluate`")
    facts = read_facts(PREPARED / "split")
    name = f"{part}_{views}" if views else part
    stored = read_arrays(files.predictions).get(name, np.empty(0))
    images = facts["counts"][part]
    shape = (min(images, max(1, len(stored))) if part == "train" else images, len(facts["classes"]))
    if stored.shape != shape or not ((stored >= 0) & (stored <= 1)).all():
        raise PipelineError(
            f"{files.predictions / name}.npy: expected probabilities {shape}; received {stored.dtype} "
            f"{stored.shape}: run `dvc repro` to make it again"
        )
    return stored


def read_right(files: ModelFiles, part: str) -> np.ndarray:
    """Whether a model is right about each image of a part, bool (n,)."""
    predicted = read_probabilities(files, part).argmax(axis=1)
    return np.asarray(predicted == read_arrays(PREPARED / part)["labels"][: len(predicted)])


def views_of(files: ModelFiles) -> str | None:
    """The test-time views that a model was predicted with, beside the image alone; None if there are none."""
    return next((name.partition("_")[2] for name in read_arrays(files.predictions) if "_" in name), None)
