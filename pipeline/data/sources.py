"""The three sources of images. Each gives a `RawDataset`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data import archive
from pipeline.data.images import ImageError, decode
from pipeline.shared.errors import PipelineError, in_a_line

BATCHES = [f"data_batch_{n}" for n in range(1, 6)]
SUFFIXES = {".png", ".jpg", ".jpeg"}

Part = tuple[np.ndarray, np.ndarray]  # uint8 images (n, 32, 32, 3) and int64 labels (n,)


@dataclass(frozen=True)
class RawDataset:
    """Images and labels as their source gives them.

    train_images uint8 (n, 32, 32, 3); train_labels int64 (n,); train_batches int64 (n,), the batch or folder
    of each image, counted from 0; test_images and test_labels likewise; the names of the classes.
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
        return _dataset(parts, [name.decode() for name in found["batches.meta"][b"label_names"]])
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
    return _dataset(parts, [str(digit) for digit in range(10)])


def directory(root: Path) -> RawDataset:
    """The user's own images: `train*/CLASS/*.png|jpg` and `test/CLASS/*.png|jpg`.

    Several train folders are put one after another, each in an order that mixes its classes. A number before
    the name of a class (003_cat) is dropped. Raises PipelineError with
    all unreadable files, or all classes that some folder lacks.
    """
    folders = [*sorted(path for path in root.glob("train*") if path.is_dir()), root / "test"]
    names = _class_folders(root, folders)
    classes = [re.sub(r"^\d+_", "", name) for name in names]
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise PipelineError(f"{root}: classes that differ only in their number: {', '.join(twice)}")
    unreadable: list[str] = []
    parts = [_read_folder(folder, names, unreadable) for folder in folders]
    if unreadable:
        raise PipelineError(f"{root}: images that cannot be read: {', '.join(unreadable)}")
    return _dataset(parts, classes)


def _dataset(parts: list[Part], classes: list[str]) -> RawDataset:
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


def _cifar10_part(batch: dict[bytes, Any]) -> Part:
    pixels = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(batch[b"labels"], np.int64)


def _class_folders(root: Path, folders: list[Path]) -> list[str]:
    """The names of the class folders, which must be the same in all folders."""
    if len(folders) < 2 or not folders[-1].is_dir():
        raise PipelineError(f"{root}: needs train*/CLASS and test/CLASS folders of images")
    found = {folder: {path.name for path in folder.iterdir() if path.is_dir()} for folder in folders}
    names = sorted(set.union(*found.values()))
    lacking = {name: [folder.name for folder in folders if name not in found[folder]] for name in names}
    stray = [f"{name} (not in {', '.join(where)})" for name, where in lacking.items() if where]
    if stray or len(names) < 2:
        problem = f"classes that some folder lacks: {', '.join(stray)}" if stray else "one class only"
        raise PipelineError(f"{root}: {problem}; every folder needs the same two or more classes")
    return names


def _read_folder(folder: Path, names: list[str], unreadable: list[str]) -> Part:
    """The images of a folder's classes, mixed. Adds the files that cannot be read to `unreadable`."""
    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise PipelineError(f"{folder}: no image (.png, .jpg or .jpeg)")
    found, labels = [], []
    for row in np.random.default_rng(0).permutation(len(files)):
        path, label = files[row]
        try:
            found.append(decode(path.read_bytes(), 32))
            labels.append(label)
        except (OSError, ImageError):
            unreadable.append(str(path))
    return np.array(found), np.array(labels, np.int64)
