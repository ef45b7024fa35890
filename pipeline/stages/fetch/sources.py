"""CIFAR-10 and scikit-learn's digits as a `RawDataset`; `folders` reads the user's own images as one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.stages.fetch import archive
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import joined

BATCHES = [f"data_batch_{n}" for n in range(1, 6)]

Part = tuple[np.ndarray, np.ndarray]  # uint8 images (n, size, size, 3) and int64 labels (n,)


@dataclass(frozen=True)
class RawDataset:
    """Images and labels as their source gives them.

    train_images uint8 (n, size, size, 3); train_labels int64 (n,); train_batches int64 (n,), the batch or
    folder of each image, counted from 0; test_images and test_labels likewise; the names of the classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    train_batches: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]


def cifar10(archives: list[str], sha256: str, downloads: Path, waits: float = 1) -> RawDataset:
    """CIFAR-10, from the first of several archives, URLs or local files, that has this SHA-256.

    `waits` is the first pause in seconds between two tries of a URL. Raises PipelineError if there is no such
    archive or its content is not CIFAR-10's, and removes it if it was downloaded.
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    path = archive.find(archives, sha256, downloads, waits)
    try:
        found = archive.unpickle(path, "cifar-10-batches-py", {*BATCHES, "test_batch", "batches.meta"})
        parts = [_cifar10_part(found[name]) for name in [*BATCHES, "test_batch"]]
        return dataset(parts, [name.decode() for name in found["batches.meta"][b"label_names"]])
    except Exception as error:  # a pickle can raise anything
        if downloads.is_dir() and path.parent.samefile(downloads):
            path.unlink()
        reason = in_a_line(error)
        raise PipelineError(f"{path}: not CIFAR-10's archive: {reason}; {archive.WAYS_OUT}") from error


def digits() -> RawDataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 enlarged to 32x32. A stratified fifth is for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in small])
    images = np.repeat(grey[..., None], 3, axis=-1)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    parts = [(images[rows], labels[rows]) for rows in (train, test)]
    return dataset(parts, [str(digit) for digit in range(10)])


def dataset(parts: list[Part], classes: list[str]) -> RawDataset:
    """A dataset of one or more training parts and, last, the test part.

    Raises PipelineError if the name of a class is empty or cannot be printed.
    """
    if unusable := [repr(name) for name in classes if not name.strip() or not name.isprintable()]:
        raise PipelineError(f"names of classes must be printable text; received {joined(unusable)}")
    *train, (test_images, test_labels) = parts
    return RawDataset(
        train_images=np.concatenate([images for images, _ in train]),
        train_labels=np.concatenate([labels for _, labels in train]),
        train_batches=np.repeat(np.arange(len(train)), [len(labels) for _, labels in train]),
        test_images=test_images,
        test_labels=test_labels,
        classes=classes,
    )


def _cifar10_part(batch: dict[bytes, Any]) -> Part:
    pixels = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.array(batch[b"labels"], np.int64)
    if pixels.dtype != np.uint8 or labels.shape != (len(pixels),):
        raise ValueError(f"a batch has {pixels.dtype} pixels and labels of shape {labels.shape}")
    return np.ascontiguousarray(pixels), labels
