"""Find an archive with the right SHA-256 and read its pickles without trusting it.

A pickle can run any code when it is read. So nothing is opened before its SHA-256 is right, and nothing is
extracted to disk. Large archives are refused, and so are links, devices and paths outside the archive. The
unpickler knows arrays and nothing else.
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

from pipeline.support.digests import file_digest
from pipeline.support.errors import PipelineError, in_a_line, masked

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
            failures.append(masked(f"{archive} ({in_a_line(error) or type(error).__name__})"))
    raise PipelineError(f"no intact archive: tried {'; '.join(failures)}; {WAYS_OUT}")


def unpickle(path: Path, folder: str, names: set[str]) -> dict[str, Any]:
    """The values of the pickles with these names in a folder of a tar archive, gzipped or not.

    Strings of Python 2 become bytes. Raises ValueError if a pickle is missing or a member is refused, and any
    other exception if the archive or a pickle is damaged.
    """
    found = {}
    with tarfile.open(fileobj=_unpacked(path), mode="r:") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise ValueError(f"{member.name} is neither a file nor a folder")
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise ValueError(f"{member.name} lies outside the archive")
            parent, _, name = member.name.rpartition("/")
            if parent == folder and name in names and (content := tar.extractfile(member)):
                found[name] = _ArrayUnpickler(content, encoding="bytes").load()
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
    kept = downloads / "cifar-10-python.tar.gz"
    if kept.is_file() and file_digest(kept) == sha256:
        return kept
    print(f"downloading {masked(url)}", flush=True)
    path = retrying(
        pooch.retrieve,
        url,
        known_hash=f"sha256:{sha256}",
        fname=kept.name,
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


def _unpacked(path: Path) -> io.BytesIO:
    """The archive in memory. Raises ValueError if it is too large."""
    with path.open("rb") as file:
        is_gzipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzipped else path.open("rb") as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ValueError(f"unpacked, it has more than {LIMIT:,} bytes")
    return io.BytesIO(content)


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
