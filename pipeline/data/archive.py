"""Find an archive with the right SHA-256 and read its pickles without trusting it.

A pickle can run any code when it is read. So nothing is opened before its SHA-256 is right, and nothing is
extracted to disk. Links, devices, paths outside the archive and large members are refused before they are
unpacked. The unpickler knows arrays and nothing else.
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

from pipeline.shared.arrays import file_digest
from pipeline.shared.errors import PipelineError

LIMIT = 2**28  # bytes of the unpacked archive; CIFAR-10 has 186 million
WAYS_OUT = "add a mirror or a local copy to data.archives in params.yaml, or set data.source to digits"
TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def find(archives: list[str], sha256: str, downloads: Path, waits: float) -> Path:
    """The path of the first of several archives, URLs or local files, that has this SHA-256.

    A URL is tried four times, after pauses from `waits` seconds on, and its file kept in `downloads`. Raises
    PipelineError with every archive that was tried and why it failed.
    """
    failures = []
    for archive in archives:
        try:
            if re.match(r"https?://", archive):
                return _download(archive, sha256, downloads, waits)
            return _local(Path(archive), sha256)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            failures.append(_without_credentials(f"{archive} ({reason})"))
    raise PipelineError(f"no intact archive: tried {'; '.join(failures)}; {WAYS_OUT}")


def unpickle(path: Path, folder: str, names: set[str]) -> dict[str, Any]:
    """The values of the pickles with these names in a folder of a tar archive, gzipped or not.

    Strings of Python 2 become bytes. Raises ValueError if a pickle is missing or a member is refused, and any
    other exception if the archive or a pickle is damaged.
    """
    found = {}
    with _opened(path) as file, tarfile.open(fileobj=_Limited(file), mode="r:") as tar:
        for member in tar:
            _check(member, tar.offset)
            parent, _, name = member.name.rpartition("/")
            content = tar.extractfile(member) if parent == folder and name in names else None
            if content is not None:
                found[name] = _ArrayUnpickler(io.BytesIO(content.read()), encoding="bytes").load()
    if missing := names - found.keys():
        raise ValueError(f"{folder} lacks {', '.join(sorted(missing))}")
    return found


def _download(url: str, sha256: str, downloads: Path, waits: float) -> Path:
    retrying = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=waits),
        reraise=True,
    )
    pooch.get_logger().setLevel("WARNING")  # its message has the password of the URL
    print(f"downloading {_without_credentials(url)}", flush=True)
    path = retrying(
        pooch.retrieve,
        url,
        known_hash=f"sha256:{sha256}",
        fname="cifar-10-python.tar.gz",
        path=downloads,
        downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
    )
    return Path(path)


def _local(path: Path, sha256: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    if (found := file_digest(path)) != sha256:
        raise ValueError(f"expected SHA-256 {sha256}, received {found}")
    return path


def _without_credentials(text: str) -> str:
    return re.sub(r"://[^/\s]+@", "://***@", text)


def _check(member: tarfile.TarInfo, end: int) -> None:
    """Refuse a member before its content, which ends at byte `end` of the archive, is unpacked."""
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"{member.name} is neither a file nor a folder")
    if Path(member.name).is_absolute() or ".." in Path(member.name).parts:
        raise ValueError(f"{member.name} lies outside the archive")
    if max(member.size, end) > LIMIT:
        raise ValueError(f"{member.name} has {member.size:,} bytes; at most {LIMIT:,} in all are allowed")


def _opened(path: Path) -> Any:
    """The archive's file, unpacked as it is read if it is gzipped."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if gzipped else path.open("rb")


class _Limited(io.BufferedIOBase):
    """A file that refuses large reads, because tarfile reads a header whole, however long it is."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes. Raises ValueError if `size` is too large."""
        if size is None or not 0 <= size <= LIMIT:
            raise ValueError(f"a header has {size} bytes; at most {LIMIT} are allowed")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek in the file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the file."""
        return self.file.tell()


class _ArrayUnpickler(pickle.Unpickler):
    """Reads Python 2 pickles of dicts and arrays, and nothing else."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look up one of the three names that an array needs."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return self.ALLOWED[module, name]
