"""Read dvc.lock and compute MD5s as DVC does, without importing DVC, which takes half a second."""

import fcntl
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from pipeline.support.errors import PipelineError, in_a_line

LOCK = Path("dvc.lock")
FOLDER = ".dir"  # DVC's suffix of the MD5 of a folder, which is the MD5 of its listing


@dataclass(frozen=True)
class Out:
    """A file or folder that a stage wrote, and its MD5 in dvc.lock."""

    path: Path
    md5: str

    def digests(self) -> dict[Path, str]:
        """The MD5 of the file, or of each file in the folder. Empty if the path does not exist."""
        found = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return {file: file_md5(file) for file in found if file.is_file()}

    def listing(self, digests: dict[Path, str]) -> bytes:
        """The JSON listing of a folder's files and their digests, in the form that DVC caches."""
        files = [{"md5": md5, "relpath": f.relative_to(self.path).as_posix()} for f, md5 in digests.items()]
        return json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True).encode()

    def content(self, md5: str) -> bytes | None:
        """The content that has this MD5: of a file, or the listing of the folder."""
        digests = self.digests()
        listing = self.listing(digests)
        if md5_of(listing) == md5:
            return listing
        return next((file.read_bytes() for file, found in digests.items() if found == md5), None)

    def is_intact(self) -> bool:
        """Whether it has the MD5 of dvc.lock, or does not exist."""
        digests = self.digests()
        if self.path.is_dir():
            return md5_of(self.listing(digests)) + FOLDER == self.md5
        return not digests or digests[self.path] == self.md5


def locked_outs() -> list[Out]:
    """The outs with an MD5 in dvc.lock. Empty if dvc.lock is missing or, as for DVC, empty.

    Raises PipelineError if dvc.lock cannot be read.
    """
    if not LOCK.is_file():
        return []
    try:
        stages = (yaml.load(_lock_text(), yaml.CSafeLoader) or {"stages": {}})["stages"]
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        return [Out(Path(out["path"]), out["md5"]) for out in outs if out.get("hash") == "md5"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = in_a_line(error)
        raise PipelineError(f"{LOCK}: cannot be read: {reason}; `git checkout {LOCK}` restores it") from error


def file_md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def md5_of(content: bytes) -> str:
    """MD5 of bytes, in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _lock_text() -> str:
    """The text of dvc.lock. DVC rewrites it in place, so this waits for DVC's own lock."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    with suppress(OSError), (root / ".dvc/tmp/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        return LOCK.read_text()
    return LOCK.read_text()
