"""The SHA-256 of the user's files, each of which is read again only if it may have changed.

A file is unchanged if it has the inode, the size and both times that it had when it was read. If it had
changed less than RACY before, it is read again: it may have changed once more within a tick of the clock.
"""

import json
import time
from pathlib import Path

from pipeline.core.arrays import write_json
from pipeline.shared.on_all_cores import on_all_cores
from pipeline.support.digests import digest_of, file_digest

RACY = 2 * 10**9  # nanoseconds, by which the coarsest clock of a disk, FAT's, may be behind

Table = dict[str, list[int | str]]  # by path: what identifies the file's state, and last its SHA-256


def update(table: Path, files: list[Path], title: str) -> list[str]:
    """The SHA-256 of each file, in hexadecimal. Reads those that are not in the table, and updates it."""
    known = read(table)

    def look(path: Path) -> tuple[list[int | str], bool]:
        now, state = time.time_ns(), _state(path)
        digest = find(known, path)
        return [*state, digest or file_digest(path)], digest is not None or max(state[2:]) < now - RACY

    found = list(on_all_cores(look, files, title))
    lasting = {str(path): entry for path, (entry, lasts) in zip(files, found, strict=True) if lasts}
    table.parent.mkdir(parents=True, exist_ok=True)
    write_json(table, {"digest": digest_of(lasting), "files": lasting})
    return [str(entry[-1]) for entry, _ in found]


def read(table: Path) -> Table:
    """The table; empty if it is missing or damaged."""
    try:
        content = json.loads(table.read_bytes())
        files: Table = content["files"]
        return files if content["digest"] == digest_of(files) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def find(table: Table, path: Path) -> str | None:
    """The SHA-256 of a file in hexadecimal, if the table has it as it is now."""
    *state, digest = table.get(str(path), [""])
    return str(digest) if state == _state(path) else None


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
