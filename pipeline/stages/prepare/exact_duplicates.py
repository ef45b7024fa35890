"""Images that occur twice with the same pixels: a test image must not be a training image."""

from hashlib import sha256
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.support.errors import PipelineError
from pipeline.support.params_errors import joined
from pipeline.support.paths import PARAMS, RAW
from pipeline.support.words import count


def find(
    train: np.ndarray, test: np.ndarray, validation: np.ndarray
) -> tuple[dict[str, int], dict[int, int]]:
    """Count images with the same pixels as another one, and find the test images among them.

    Counted are, as `training`, raw training images that repeat an earlier one; as `training_and_validation`,
    validation images that are also in the rest of `train`; as `test`, test images that are also in `train`.
    The latter come with the row of the first such image in `train`.
    """
    known, tested = (pd.Series([sha256(image).digest() for image in part]) for part in (train, test))
    first = pd.Series(known.index, known).groupby(level=0).first()
    twins = tested.map(first).dropna()
    counts = {
        "training": int(known.duplicated().sum()),
        "training_and_validation": int(known[validation].isin(known.drop(validation)).sum()),
        "test": len(twins),
    }
    return counts, dict(zip(twins.index.tolist(), twins.astype(int).tolist(), strict=True))


def check(
    counts: dict[str, int],
    twins: dict[int, int],
    names: tuple[np.ndarray, np.ndarray],
    wanted: Literal["error", "warn"],
) -> None:
    """Raise PipelineError, or warn if that is `wanted`, if test images are also training images.

    `names` are those of the training and of the test images. Only warns of validation images that are also
    training images.
    """
    if twins:
        train, test = names
        pairs = joined([f"{test[row]} is {train[twin]}" for row, twin in twins.items()])
        line = f"{count(len(twins), 'test image')} also in training: {pairs}"
        if wanted == "error":
            raise PipelineError(f"{RAW}: {line}: remove them, or set split.duplicates to warn in {PARAMS}")
        print(f"prepare: warning: {line}")
    if both := counts["training_and_validation"]:
        print(f"prepare: warning: {count(both, 'validation image')} also in training")
