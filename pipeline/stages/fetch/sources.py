"""The `RawDataset` that every source gives, and scikit-learn's digits as one."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.core.arrays import Rows

Part = tuple[np.ndarray, np.ndarray]  # uint8 images (n, size, size, 3) and int64 labels (n,)


@dataclass(frozen=True)
class RawDataset:
    """Images and labels as their source gives them.

    train_images uint8 (n, size, size, 3); train_labels int64 (n,); train_batches int64 (n,), the batch or
    folder of each image, counted from 0; test_images and test_labels likewise; the names of the classes.
    Of images from files: train_ids, uint64 (n,), what the content of the file gives; train_names and
    test_names, str (n,), its path.
    """

    train_images: np.ndarray | Rows
    train_labels: np.ndarray
    train_batches: np.ndarray
    test_images: np.ndarray | Rows
    test_labels: np.ndarray
    classes: list[str]
    train_ids: np.ndarray | None = None
    train_names: np.ndarray | None = None
    test_names: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray | Rows]:
        """Its arrays by their names."""
        return {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray | Rows)}


def dataset(parts: list[Part], classes: list[str]) -> RawDataset:
    """A dataset of one or more training parts and, last, the test part."""
    *train, (test_images, test_labels) = parts
    return RawDataset(
        train_images=np.concatenate([images for images, _ in train]),
        train_labels=np.concatenate([labels for _, labels in train]),
        train_batches=np.repeat(np.arange(len(train)), [len(labels) for _, labels in train]),
        test_images=test_images,
        test_labels=test_labels,
        classes=classes,
    )


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
    return dataset([(images[rows], labels[rows]) for rows in (train, test)], [str(n) for n in range(10)])
