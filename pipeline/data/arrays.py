"""Folders of arrays with a manifest of digests that every reader checks.

A folder holds one `.npy` file an array and `manifest.json`, whose last digest is that of the rest of it:

    {"arrays": {"images": {"dtype": "uint8", "sha256": "...", "shape": [45000, 32, 32, 3]}},
     "facts": {...},
     "sha256": "..."}

The same arrays and facts give the same bytes, so DVC sees a change only where there is one.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError

MANIFEST = "manifest.json"


def write_json(path: Path, content: Any) -> None:
    """Write `content` in one canonical form: sorted keys, two spaces, a last newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_canonical(content))


def digest_of(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON-like value whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(folder: Path, arrays: dict[str, np.ndarray], **facts: Any) -> None:
    """Write arrays and facts to `folder`, all or nothing: a new folder takes the old one's place."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    described = {}
    for name, array in arrays.items():
        path = partial / f"{name}.npy"
        try:
            np.save(path, np.asarray(array, order="C"), allow_pickle=False)
        except OSError as error:  # of a full disk NumPy tells the bytes that it wrote, and no more
            raise OSError(
                error.errno or errno.ENOSPC, os.strerror(error.errno or errno.ENOSPC), str(path)
            ) from error
        described[name] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "sha256": file_digest(path),
        }
    write_json(partial / MANIFEST, _with_digest({"arrays": described, "facts": facts}))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts that were written with a folder's arrays."""
    return _manifest(folder)["facts"]


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Memory-map a folder's arrays, read-only, after checking each file against the manifest.

    Raises PipelineError, naming the file, where one is missing or differs from its digest.
    """
    arrays = {}
    for name, described in _manifest(folder)["arrays"].items():
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise PipelineError(f"{path}: missing, though {folder / MANIFEST} lists it")
        found = file_digest(path)
        if found != described["sha256"]:
            raise PipelineError(
                f"{path}: damaged: expected SHA-256 {described['sha256']}, received {found}; "
                "delete it and run `dvc repro` to make it again"
            )
        arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return arrays


def arrays_digest(folder: Path) -> str:
    """One digest for all arrays of a folder, from its manifest."""
    arrays = _manifest(folder)["arrays"]
    return digest_of({name: described["sha256"] for name, described in arrays.items()})


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
        manifest = json.loads(text)
        told = {"arrays": manifest["arrays"], "facts": manifest["facts"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path}: cannot be read: {error}") from error
    if text != _canonical(_with_digest(told)):
        raise PipelineError(
            f"{path}: damaged: its content has another SHA-256 than it says; "
            "delete it and run `dvc repro` to make it again"
        )
    return told


def _with_digest(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"sha256": digest_of(content)}


def _canonical(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
