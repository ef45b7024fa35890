"""Draws images by the content of their files, so that images that are added move none of the others.

A file's SHA-256 gives two numbers as if they were drawn: the first decides whether it is a test image, the
second whether it validates. Copies of a file have the same, so they stay together.
"""

import hashlib

import numpy as np


def content_shares(content: bytes) -> tuple[float, float]:
    """The two numbers of a file, from 0 to 1."""
    digest = hashlib.sha256(content).digest()
    first, second = (int.from_bytes(digest[start : start + 8]) / 2**64 for start in (0, 8))
    return first, second


def draw(shares: np.ndarray, labels: np.ndarray, fraction: float, least: int) -> np.ndarray:
    """Which of n images are drawn, bool (n,): those whose share, float64 (n,), is below the fraction.

    If these are fewer than `least` of a class, so are the next ones of it: only in such a class can an added
    image move another. `labels` is int64 (n,).
    """
    drawn = shares < fraction
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        drawn[rows[np.argsort(shares[rows], kind="stable")[:least]]] = True
    return drawn
