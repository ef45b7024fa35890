"""CIFAR-10's archive: had from the first place that gives it whole, and read without trusting it.

Its batches are pickles, which can run any code when they are read. So nothing is opened before its
SHA-256 is right, nothing is extracted, an archive with anything but files and folders of CIFAR-10's size is
refused before that is unpacked, and the unpickler knows arrays and nothing else.
"""

import gzip
import io
import pickle  # nosec B403 # for the unpickler below, which knows arrays and nothing else
import re
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pooch
import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipeline.data.arrays import file_digest
from pipeline.errors import PipelineError, in_a_line

BATCHES = [f"data_batch_{n}" for n in range(1, 6)]
MEMBERS = "cifar-10-batches-py"
PICKLES = {*BATCHES, "test_batch", "batches.meta"}
LIMIT = 2**28  # bytes of the unpacked archive; CIFAR-10 has 186 million
WAYS_OUT = (
    "ways out: add a mirror or a local copy of the archive to data.archives in params.yaml, "
    "or set data.source to digits"
)
TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)

Part = tuple[np.ndarray, np.ndarray]  # uint8 images (n, 32, 32, 3) and int64 labels (n,)


def read(path: Path) -> tuple[list[Part], Part, list[str]]:
    """The five training batches, the test batch and the classes' names; PipelineError where any is amiss."""
    try:
        found = _contents(path)
        train = [_images_and_labels(found[name]) for name in BATCHES]
        test = _images_and_labels(found["test_batch"])
        names = [name.decode() for name in found["batches.meta"][b"label_names"]]
    except Exception as error:  # a pickle can raise anything
        reason = in_a_line(error)
        raise PipelineError(f"{path}: not CIFAR-10's archive: {reason}; {WAYS_OUT}") from error
    return train, test, names


def first_good(archives: list[str], sha256: str, downloads: Path, waits: float) -> Path:
    """The path of the first archive, URL or local file, whose SHA-256 is right.

    A URL is tried four times, with pauses from `waits` seconds on, and kept in `downloads`. Raises
    PipelineError that names all that was tried, why each failed, and the ways out.
    """
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


def _contents(path: Path) -> dict[str, dict[bytes, Any]]:
    """What the pickles of an archive hold, by their names; ValueError for a member unlike CIFAR-10's."""
    found = {}
    with _opened(path) as file, tarfile.open(fileobj=_Limited(file), mode="r:") as tar:
        for member in tar:
            _check(member, tar.offset)
            folder, _, name = member.name.rpartition("/")
            content = tar.extractfile(member) if folder == MEMBERS and name in PICKLES else None
            if content is not None:
                found[name] = _ArrayUnpickler(io.BytesIO(content.read()), encoding="bytes").load()
    if missing := PICKLES - found.keys():
        raise ValueError(f"{MEMBERS} lacks {', '.join(sorted(missing))}")
    return found


def _check(member: tarfile.TarInfo, end: int) -> None:
    """Refuse a member before its content, which ends at byte `end` of the archive, is unpacked."""
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"{member.name} is neither a file nor a folder")
    if Path(member.name).is_absolute() or ".." in Path(member.name).parts:
        raise ValueError(f"{member.name} lies outside the archive")
    if max(member.size, end) > LIMIT:
        raise ValueError(f"{member.name} has {member.size:,} bytes; at most {LIMIT:,} in all are allowed")


def _images_and_labels(batch: dict[bytes, Any]) -> Part:
    pixels = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(batch[b"labels"], np.int64)


def _opened(path: Path) -> io.BufferedIOBase:
    """A tar, gzipped as the official one is, or not."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if gzipped else path.open("rb")


class _Limited(io.BufferedIOBase):
    """A file of which little is read at once: tar reads its own headers whole, however long."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes; ValueError where they are too many."""
        if size is None or not 0 <= size <= LIMIT:
            raise ValueError(f"a header has {size} bytes; at most {LIMIT} are allowed")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As the file's."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As the file's."""
        return self.file.tell()


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
