"""Stored probabilities, and whether the stored scores are theirs."""

import numpy as np

from pipeline.shared.arrays import read_arrays, read_facts
from pipeline.shared.errors import PipelineError
from pipeline.shared.paths import PREPARED
from pipeline.shared.trained import Trained


def read_probabilities(trained: Trained, part: str, views: str | None = None) -> np.ndarray:
    """A model's probabilities for a part of the images, memory-mapped, (n, classes).

    With `views`, their mean over these test-time views. Raises PipelineError if they are not numbers from 0
    to 1, a row for each image.
    """
    facts = read_facts(PREPARED / "split")
    shape = (facts["counts"][part], len(facts["classes"]))
    name = f"{part}_{views}" if views else part
    stored = read_arrays(trained.predictions).get(name, np.empty(0))
    if stored.shape != shape or not ((stored >= 0) & (stored <= 1)).all():
        raise PipelineError(
            f"{trained.predictions / name}.npy: expected probabilities {shape}; received {stored.dtype} "
            f"{stored.shape}: run `dvc repro predict@{trained.name}`"
        )
    return stored


def views_of(trained: Trained) -> str | None:
    """The test-time views that a model was predicted with, beside the image alone; None if there are none."""
    return next((name.partition("_")[2] for name in read_arrays(trained.predictions) if "_" in name), None)


def check_scores(models: list[Trained]) -> None:
    """Raise PipelineError if a stored validation accuracy is not that of the stored probabilities.

    Reads nothing of test images.
    """
    labels = read_arrays(PREPARED / "validation")["labels"]
    for trained in models:
        if trained.divergence() is None:
            stored = trained.metrics()["validation"]["accuracy"]
            predicted = read_probabilities(trained, "validation").argmax(axis=1)
            found = float((predicted == labels).mean())
            if stored != found:
                raise PipelineError(
                    f"{trained.scores}: validation accuracy {stored}, but {trained.predictions} gives "
                    f"{found}: run `dvc repro evaluate`"
                )
