"""Folders of NumPy arrays with a JSON manifest, and canonical JSON.

A folder holds a `.npy` file for each array and `manifest.json`:

    {"arrays": {"images": {"dtype": "uint8", "shape": [45000, 32, 32, 3]}}, "facts": {...}}

The same arrays and facts give the same bytes. `integrity` compares them with dvc.lock.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.json_and_csv import read_json
from pipeline.support.new_files import write_text

MANIFEST = "manifest.json"
BLOCK = 2**24  # bytes that are copied at once


class Manifest(TypedDict):
    """The content of manifest.json."""

    arrays: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows of an array that may be larger than the memory: they are copied block by block when written."""

    array: np.ndarray
    rows: np.ndarray  # their numbers, in this order

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the array."""
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that an array of these rows has."""
        return (len(self.rows), *self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: Any) -> np.ndarray:
        """Some of these rows, in memory."""
        return np.asarray(self.array[self.rows[some]])

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, in parts of at most BLOCK bytes, or a row each."""
        step = max(1, BLOCK // max(1, self.array[:1].nbytes))
        return (self[start : start + step] for start in range(0, len(self), step))


def write_json(path: Path, content: Any) -> None:
    """Write JSON in a canonical form: sorted keys, two spaces, a final newline."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray | Rows], **facts: Any) -> None:
    """Replace `folder` with these arrays and facts, all or nothing."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    described = {}
    for name, array in arrays.items():
        path = partial / f"{name}.npy"
        try:
            _save(path, array)
        except OSError as error:  # on a full disk, NumPy's own message names no file
            number = error.errno or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from error
        described[name] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    write_json(partial / MANIFEST, {"arrays": described, "facts": facts})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts that were written with a folder's arrays. Raises PipelineError if they cannot be read."""
    return _manifest(folder)["facts"]


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Memory-map a folder's arrays, read-only. Raises PipelineError if one is missing or not an array."""
    arrays = {}
    for name in _manifest(folder)["arrays"]:
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = f"{in_a_line(error)}; run `dvc repro` to make it again"
            raise PipelineError(f"{path}: cannot be read: {reason}") from error
    return arrays


def arrays_digest(folder: Path) -> str:
    """SHA-256, in hexadecimal, that identifies all arrays of a folder but not its facts."""
    return digest_of({name: file_digest(folder / f"{name}.npy") for name in _manifest(folder)["arrays"]})


def _save(path: Path, array: np.ndarray | Rows) -> None:
    """Write an array as `np.save` does."""
    if not isinstance(array, Rows):
        np.save(path, np.asarray(array, order="C"), allow_pickle=False)
        return
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in array.blocks():
            file.write(block.data)


def _manifest(folder: Path) -> Manifest:
    manifest: Manifest = read_json(folder / MANIFEST, Manifest)
    return manifest
