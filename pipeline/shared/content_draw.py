"""Numbers images by their content, and draws by these numbers, so that added images move none of the others.

The SHA-256 of a file, or of pixels, gives two numbers as if they were drawn: the first decides whether it is
a test image, the second whether it validates. Copies have the same numbers, so they stay together. The second
number is also the image's id, by which a model's version names the images that it was trained on.
"""

import hashlib

import numpy as np

RANGE = 2.0**64  # a number is below it


def content_numbers(content: bytes) -> tuple[int, int]:
    """The two numbers of a file or of pixels, of 64 bits each."""
    return numbers_of(hashlib.sha256(content).digest())


def numbers_of(digest: bytes) -> tuple[int, int]:
    """The two numbers that a SHA-256 gives."""
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:16])


def draw(numbers: np.ndarray, labels: np.ndarray, fraction: float, least: int) -> np.ndarray:
    """Which of n images are drawn, bool (n,): those whose number, uint64 (n,), is among the lowest fraction.

    If these are fewer than `least` of a class, so are the next ones of it: only in such a class can an added
    image move another. `labels` is int64 (n,).
    """
    drawn = numbers < fraction * RANGE
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        drawn[rows[np.argsort(numbers[rows], kind="stable")[:least]]] = True
    return drawn
