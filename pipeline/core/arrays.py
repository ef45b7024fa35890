"""Folders of NumPy arrays with a JSON manifest, and canonical JSON.

A folder holds a `.npy` file for each array and `manifest.json`:

    {"arrays": {"images": {"dtype": "uint8", "shape": [45000, 32, 32, 3]}}, "facts": {...}}

The same arrays and facts give the same bytes. `integrity` compares them with dvc.lock.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.json_and_csv import read_json
from pipeline.support.new_files import write_text

MANIFEST = "manifest.json"


class Manifest(TypedDict):
    """The content of manifest.json."""

    arrays: dict[str, Any]
    facts: dict[str, Any]


def write_json(path: Path, content: Any) -> None:
    """Write JSON in a canonical form: sorted keys, two spaces, a final newline."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_arrays(folder: Path, arrays: dict[str, np.ndarray], **facts: Any) -> None:
    """Replace `folder` with these arrays and facts, all or nothing."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    described = {}
    for name, array in arrays.items():
        path = partial / f"{name}.npy"
        try:
            np.save(path, np.asarray(array, order="C"), allow_pickle=False)
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


def _manifest(folder: Path) -> Manifest:
    manifest: Manifest = read_json(folder / MANIFEST, Manifest)
    return manifest
