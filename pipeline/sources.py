"""The three places that images come from, each as the same `RawDataset`."""

import io
import pickle
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pooch
import requests
from PIL import Image, ImageOps
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipeline.arrays import file_digest
from pipeline.errors import PipelineError

SIZE = (32, 32)
BATCHES = [f"data_batch_{n}" for n in range(1, 6)]
MEMBERS = "cifar-10-batches-py"
WAYS_OUT = (
    "ways out: add a mirror or a local copy of the archive to data.archives in params.yaml, "
    "or set data.source to digits"
)
TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


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
    path = _first_good_archive(archives, sha256, downloads, waits)
    try:
        with tarfile.open(path) as archive:
            train = [_read_batch(archive, name) for name in BATCHES]
            test_images, test_labels = _read_batch(archive, "test_batch")
            names = _unpickle(archive, "batches.meta")[b"label_names"]
    except (tarfile.TarError, KeyError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise PipelineError(f"{path}: not CIFAR-10's archive: {error}; {WAYS_OUT}") from error
    return RawDataset(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.repeat(np.arange(len(train)), [len(labels) for _, labels in train]),
        test_images,
        test_labels,
        [name.decode() for name in names],
    )


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
        order = np.random.default_rng(0).permutation(len(labels))
        parts.append((np.array(images)[order], np.array(labels, np.int64)[order]))
    if unreadable:
        raise PipelineError(f"{root}: images that cannot be read: {', '.join(unreadable)}")
    train, (test_images, test_labels) = parts[:-1], parts[-1]
    return RawDataset(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.repeat(np.arange(len(train)), [len(labels) for _, labels in train]),
        test_images,
        test_labels,
        [re.sub(r"^\d+_", "", name) for name in classes],
    )


def _first_good_archive(archives: list[str], sha256: str, downloads: Path, waits: float) -> Path:
    failures = []
    for archive in archives:
        try:
            if re.match(r"https?://", archive):
                return _download(archive, sha256, downloads, waits)
            return _local(Path(archive), sha256)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            failures.append(f"{archive} ({reason})")
    raise PipelineError(f"no whole CIFAR-10 archive: tried {'; '.join(failures)}; {WAYS_OUT}")


def _download(url: str, sha256: str, downloads: Path, waits: float) -> Path:
    retrying = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=waits),
        reraise=True,
    )
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    return Path(
        retrying(
            pooch.retrieve,
            url,
            known_hash=f"sha256:{sha256}",
            fname="cifar-10-python.tar.gz",
            path=downloads,
            downloader=downloader,
        )
    )


def _local(path: Path, sha256: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    if (found := file_digest(path)) != sha256:
        raise ValueError(f"SHA-256 is {found}, data.sha256 is {sha256}")
    return path


def _read_batch(archive: tarfile.TarFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(archive, name)
    pixels = batch[b"data"].reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(batch[b"labels"], np.int64)


def _unpickle(archive: tarfile.TarFile, name: str) -> dict[bytes, Any]:
    member = archive.extractfile(f"{MEMBERS}/{name}")
    if member is None:
        raise ValueError(f"{MEMBERS}/{name} is no regular file")
    return _ArrayUnpickler(io.BytesIO(member.read()), encoding="bytes").load()


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the batches, which are Python 2 pickles of dicts and arrays, and nothing else."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look up one of the three names that an array needs."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch")
        return self.ALLOWED[module, name]


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
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize(SIZE, Image.Resampling.BILINEAR))
