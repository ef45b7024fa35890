"""Images that occur twice with the same pixels: a test image must not be a training image."""

from hashlib import sha256
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.support.errors import PipelineError
from pipeline.support.paths import PARAMS, RAW


def count(train: np.ndarray, test: np.ndarray, validation: np.ndarray) -> dict[str, int]:
    """Count images with the same pixels as another one.

    `training`: raw training images that repeat an earlier one; `training_and_validation`: validation images
    that are also in the rest of `train`; `test`: test images that are also in `train`.
    """
    known, tested = (pd.Series([sha256(image).digest() for image in part]) for part in (train, test))
    return {
        "training": int(known.duplicated().sum()),
        "training_and_validation": int(known[validation].isin(known.drop(validation)).sum()),
        "test": int(tested.isin(known).sum()),
    }


def check(found: dict[str, int], wanted: Literal["error", "warn"]) -> None:
    """Raise PipelineError, or warn if that is `wanted`, if test images are also training images.

    Only warns of validation images that are also training images.
    """
    if found["test"]:
        line = f"{found['test']:,} test images are also training images"
        if wanted == "error":
            raise PipelineError(f"{RAW}: {line}: remove them, or set split.duplicates to warn in {PARAMS}")
        print(f"prepare: warning: {line}")
    if both := found["training_and_validation"]:
        print(f"prepare: warning: {both:,} validation images are also training images")
