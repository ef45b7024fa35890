"""The three places that images come from, each as the same `RawDataset`."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data import archive
from pipeline.data.archive import Part
from pipeline.data.images import SIZE, upright_rgb
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class RawDataset:
    """Images as their source gives them.

    train_images uint8 (n, 32, 32, 3); train_labels int64 (n,); train_batches int64 (n,): which batch or
    folder an image came from, counted from 0; test_images and test_labels likewise; the classes' names.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    train_batches: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]


def cifar10(archives: list[str], sha256: str, downloads: Path, waits: float = 1) -> RawDataset:
    """The official CIFAR-10 archive, from the first of `archives` that gives it whole.

    An archive is a URL or a local file; `waits` is the first pause in seconds between two tries of a URL.
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    path = archive.first_good(archives, sha256, downloads, waits)
    try:
        train, (test_images, test_labels), classes = archive.read(path)
    except PipelineError:
        if downloads.is_dir() and path.parent.samefile(downloads):
            path.unlink()
        raise
    return _concatenated(train, test_images, test_labels, classes)


def digits() -> RawDataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 enlarged to 32x32; a stratified fifth tests."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).resize(SIZE)) for image in small])
    images = np.repeat(grey[..., None], 3, axis=-1)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return RawDataset(
        images[train],
        labels[train],
        np.zeros(len(train), np.int64),
        images[test],
        labels[test],
        [str(digit) for digit in range(10)],
    )


def directory(root: Path) -> RawDataset:
    """The user's own images: `train*/CLASS/*.png|jpg` and `test/CLASS/*.png|jpg`.

    Several train folders are put one after another, each in an order that mixes its classes. A
    number before a class's name (003_cat) is dropped. Images are turned upright and resized.
    Raises PipelineError that names all unreadable files, or all classes that some folder lacks.
    """
    train_folders = sorted(path for path in root.glob("train*") if path.is_dir())
    folders = [*train_folders, root / "test"]
    classes = _shared_classes(root, folders)
    parts, unreadable = [], []
    names = [re.sub(r"^\d+_", "", name) for name in classes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(f"{root}: classes that differ in their number only: {', '.join(twice)}")
    for folder in folders:
        images, labels = [], []
        for label, name in enumerate(classes):
            for path in sorted((folder / name).iterdir()):
                if path.suffix.lower() in {".png", ".jpg", ".jpeg"}:
                    try:
                        images.append(_read_image(path))
                        labels.append(label)
                    except (OSError, SyntaxError, Image.DecompressionBombError):
                        unreadable.append(str(path))
        if not labels and not unreadable:
            raise PipelineError(f"{folder}: holds no image (.png, .jpg or .jpeg)")
        order = np.random.default_rng(0).permutation(len(labels))
        parts.append((np.array(images)[order], np.array(labels, np.int64)[order]))
    if unreadable:
        raise PipelineError(f"{root}: images that cannot be read: {', '.join(unreadable)}")
    return _concatenated(parts[:-1], *parts[-1], names)


def _concatenated(
    train: list[Part], test_images: np.ndarray, test_labels: np.ndarray, classes: list[str]
) -> RawDataset:
    return RawDataset(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.repeat(np.arange(len(train)), [len(labels) for _, labels in train]),
        test_images,
        test_labels,
        classes,
    )


def _shared_classes(root: Path, folders: list[Path]) -> list[str]:
    if len(folders) < 2 or not folders[-1].is_dir():
        raise PipelineError(f"{root}: needs train*/CLASS and test/CLASS folders of images")
    found = {f: {path.name for path in f.iterdir() if path.is_dir()} for f in folders}
    classes = sorted(set.union(*found.values()))
    stray = [
        f"{name} (not in {', '.join(f.name for f in folders if name not in found[f])})"
        for name in classes
        if any(name not in found[f] for f in folders)
    ]
    if stray or len(classes) < 2:
        problem = f"classes that some folder lacks: {', '.join(stray)}" if stray else "one class only"
        raise PipelineError(f"{root}: {problem}; every folder needs the same two or more classes")
    return classes


def _read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(upright_rgb(image).resize(SIZE, Image.Resampling.BILINEAR))
