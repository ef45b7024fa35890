"""Pixels of image files, kept so that only new and changed files are decoded again.

They are records of one file, never all in memory: the SHA-256 of an image file, a check and the pixels. The
check is a digest of the other two and of what decides how files are decoded. So a record that is damaged,
half written or made by other code or settings counts as none.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np

from pipeline.shared import image_decoding
from pipeline.support.digests import digest_of, file_digest

SHA256 = 32  # bytes


class DecodedImages:
    """The pixels that `decode` gives for image files, by the SHA-256 of these: `digest in decoded`.

    `decode` is `image_decoding.decode` with its settings. Used as a context manager, from several threads.
    """

    def __init__(self, path: Path, decode: "partial[np.ndarray]") -> None:
        size = decode.keywords["size"]
        code, packages = file_digest(Path(image_decoding.__file__)), map(version, ("pillow", "pillow-heif"))
        self.decode: Callable[[bytes], np.ndarray] = decode
        self._decoder = digest_of([code, *packages, decode.keywords]).encode()
        pixels = ("pixels", np.uint8, (size, size, 3))
        self._record = np.dtype([("file", np.void, SHA256), ("check", np.void, SHA256), pixels])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._slots = {file.tobytes(): slot for slot, file in enumerate(self._records()["file"])}
        self._end = len(self._records())
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, digest: bytes) -> bool:
        """Whether there is an intact record of the file with this SHA-256."""
        slot = self._slots.get(digest)
        if slot is None:
            return False
        record = os.pread(self._file.fileno(), self._record.itemsize, slot * self._record.itemsize)
        return record[: 2 * SHA256] == self._header(digest, record[2 * SHA256 :])

    def add(self, digest: bytes, pixels: np.ndarray) -> None:
        """Write the record of the file with this SHA-256."""
        content = pixels.tobytes()
        with self._lock:
            slot, self._end = self._end, self._end + 1
        self._write(slot, self._header(digest, content) + content)
        self._slots[digest] = slot

    def keep(self, digests: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Keep the records of these files alone. The pixels of all, memory-mapped, and each file's row."""
        kept = {digest: self._slots[digest] for digest in digests}
        free = sorted(set(range(len(kept))).difference(kept.values()))
        records = self._records()
        for digest in [digest for digest, slot in kept.items() if slot >= len(kept)]:
            record, kept[digest] = records[kept[digest]].tobytes(), free.pop()
            self._write(kept[digest], record)
        self._slots, self._end = kept, len(kept)
        self._file.truncate(len(kept) * self._record.itemsize)
        return self._records()["pixels"], np.array([kept[digest] for digest in digests], np.int64)

    def _records(self) -> np.ndarray:
        """All records, memory-mapped, (n,)."""
        count = os.fstat(self._file.fileno()).st_size // self._record.itemsize
        if not count:
            return np.empty(0, self._record)
        return np.memmap(self._file, self._record, mode="r", shape=(count,))

    def _header(self, digest: bytes, pixels: bytes) -> bytes:
        return digest + sha256(self._decoder + digest + pixels).digest()

    def _write(self, slot: int, record: bytes) -> None:
        # Not through a memory map, which ends the process if the disk is full.
        written = os.pwrite(self._file.fileno(), record, slot * len(record))
        if written < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
