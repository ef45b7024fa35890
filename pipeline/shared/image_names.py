"""What images are called where a person reads of them: files by their paths, others by their numbers."""

import numpy as np

from pipeline.core.arrays import read_arrays
from pipeline.support.paths import PREPARED

WIDTH = 26  # of a name in a figure, in characters


def image_names(part: str) -> np.ndarray:
    """The names of the images of a part of data/prepared, str (n,): such as `cat/1.jpg`, `test image 3`."""
    return read_arrays(PREPARED / "names")[part]


def for_figure(name: str, width: int = WIDTH) -> str:
    """The end of a name that is too wide for a figure."""
    return name if len(name) <= width else f"...{name[3 - width :]}"
