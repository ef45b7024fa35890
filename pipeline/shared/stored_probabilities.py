"""Reads stored probabilities, and checks that the stored scores are theirs."""

import numpy as np

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED


def read_probabilities(files: ModelFiles, part: str, views: str | None = None) -> np.ndarray:
    """A model's probabilities for a part of the images, memory-mapped, (n, classes).

    With `views`, their mean over these test-time views. Raises PipelineError if they are not numbers from 0
    to 1, a row for each image.
    """
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


def check_scores(models: list[ModelFiles]) -> None:
    """Raise PipelineError if a stored validation accuracy is not that of the stored probabilities.

    Reads nothing of test images.
    """
    for files in models:
        if files.divergence() is None:
            stored = files.metrics()["validation"]["accuracy"]
            found = float(read_right(files, "validation").mean())
            if stored != found:
                raise PipelineError(
                    f"{files.scores}: validation accuracy {stored}, but {files.predictions} gives "
                    f"{found}: run `dvc repro evaluate`"
                )
