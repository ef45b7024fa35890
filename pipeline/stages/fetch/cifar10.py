"""CIFAR-10's archive, found by its SHA-256 and read without trusting it.

Unpickling can run any code. So nothing is opened before its SHA-256 is right, nothing is extracted to disk,
and the unpickler knows arrays and nothing else. Large archives are refused, and so are links, devices and
paths outside the archive.
"""

import gzip
import io
import pickle  # nosec B403 # for the unpickler below, which knows arrays and nothing else
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.stages.fetch.sources import Part, RawDataset, dataset
from pipeline.support import known_files
from pipeline.support.errors import PipelineError, in_a_line

LIMIT = 2**28  # bytes of a download and of the unpacked archive; CIFAR-10 has 170 and 186 million
KEPT = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"  # in the archive
BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
NAMES = "batches.meta"
SOLUTION = "add a mirror or a local copy to data.archives in params.yaml, or set data.source to digits"


def read(archives: list[str], sha256: str, downloads: Path) -> RawDataset:
    """CIFAR-10, from the first of several archives, URLs or local files, that has this SHA-256.

    A downloaded archive is kept in `downloads`. Raises PipelineError with every archive that was tried and
    why it failed. If the content is not CIFAR-10's, also removes it if it was downloaded.
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    try:
        path = known_files.find(archives, sha256, downloads / KEPT, LIMIT)
    except PipelineError as error:
        raise PipelineError(f"no intact archive: {error}; {SOLUTION}") from error
    try:
        found = _unpickle(path)
        parts = [_part(found[name]) for name in BATCHES]
        return dataset(parts, [name.decode() for name in found[NAMES][b"label_names"]])
    except Exception as error:  # a pickle can raise anything
        if path == downloads / KEPT:
            path.unlink()
        raise PipelineError(f"{path}: not CIFAR-10's archive: {in_a_line(error)}; {SOLUTION}") from error


def _unpickle(path: Path) -> dict[str, Any]:
    """The values of the pickles in a gzipped archive, by their names. Strings of Python 2 become bytes."""
    with gzip.open(path) as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ValueError(f"unpacked, it has more than {LIMIT:,} bytes")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise ValueError(f"{member.name} is neither a file nor a folder")
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise ValueError(f"{member.name} lies outside the archive")
            parent, _, name = member.name.rpartition("/")
            if parent == FOLDER and name in {*BATCHES, NAMES} and (packed := tar.extractfile(member)):
                found[name] = _ArrayUnpickler(packed, encoding="bytes").load()
    if missing := {*BATCHES, NAMES} - found.keys():
        raise ValueError(f"{FOLDER}: missing {', '.join(sorted(missing))}")
    return found


def _part(batch: dict[bytes, Any]) -> Part:
    pixels = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(batch[b"labels"], np.int64)


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
