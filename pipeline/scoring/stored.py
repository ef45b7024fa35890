"""Stored probabilities, and whether the stored scores are theirs."""

import numpy as np

from pipeline.scoring.metrics import accuracy
from pipeline.shared.arrays import read_arrays, read_facts
from pipeline.shared.errors import PipelineError
from pipeline.shared.paths import PREPARED
from pipeline.shared.trained import Trained


def read_probabilities(trained: Trained, part: str) -> np.ndarray:
    """A model's probabilities for a part of the images, memory-mapped, (n, classes).

    Raises PipelineError if they are not numbers from 0 to 1, a row for each image.
    """
    facts = read_facts(PREPARED / "split")
    shape = (facts["counts"][part], len(facts["classes"]))
    stored = read_arrays(trained.predictions).get(part, np.empty(0))
    if stored.shape != shape or not ((stored >= 0) & (stored <= 1)).all():
        raise PipelineError(
            f"{trained.predictions / part}.npy: expected probabilities {shape}; received {stored.dtype} "
            f"{stored.shape}: run `dvc repro predict@{trained.name}`"
        )
    return stored


def check_scores(models: list[Trained]) -> None:
    """Raise PipelineError if a stored validation accuracy is not that of the stored probabilities.

    Reads nothing of test images.
    """
    labels = read_arrays(PREPARED / "validation")["labels"]
    for trained in models:
        if trained.divergence() is None:
            stored = trained.metrics()["validation"]["accuracy"]
            found = accuracy(labels, read_probabilities(trained, "validation"))
            if stored != found:
                raise PipelineError(
                    f"{trained.scores}: validation accuracy {stored}, but {trained.predictions} gives "
                    f"{found}: run `dvc repro evaluate`"
                )
