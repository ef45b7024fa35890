"""Find damaged files before a stage reads them, by the MD5s of dvc.lock.

Each stage calls `check_inputs`, and `make repro` calls `check_everything` before it plans. DVC does not read
a file again if its inode, size and modification time are unchanged, and trusts its cache, so it misses silent
corruption. A damaged file is refused with the command that restores it from DVC's cache or, if no intact copy
is left, makes it again.

A change that DVC sees is an edit, and DVC handles it.
"""

import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.support.errors import PipelineError, in_a_line

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = Path("dvc.lock")
FOLDER = ".dir"  # DVC's suffix of the MD5 of a folder, which is the MD5 of its listing
Damaged = tuple[Path, str, str]  # a file, its MD5 in DVC, and the command that restores it
REPRO = "dvc repro"


@dataclass(frozen=True)
class Out:
    """A file or folder that a stage wrote, and its MD5 in dvc.lock."""

    path: Path
    md5: str

    def digests(self) -> dict[Path, str]:
        """The MD5 of the file, or of each file in the folder. Empty if the path does not exist."""
        found = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return {file: md5 for file in found if (md5 := file_md5(file))}

    def is_intact(self) -> bool:
        """Whether it has the MD5 of dvc.lock, or does not exist."""
        if not self.path.is_dir():
            return file_md5(self.path) in {self.md5, None}
        found = self.digests().items()
        files = [{"md5": md5, "relpath": file.relative_to(self.path).as_posix()} for file, md5 in found]
        listing = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)  # as DVC's
        return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + FOLDER == self.md5


def check_inputs(*paths: Path) -> None:
    """Check the files of dvc.lock that are at, in or around these paths. Does nothing without a dvc.lock.

    Raises PipelineError with the damaged files and the command that restores them.
    """
    _refuse_damage(
        [
            out
            for out in locked_outs()
            if any(out.path.is_relative_to(path) or path.is_relative_to(out.path) for path in paths)
            and not out.is_intact()
        ]
    )


def check_everything() -> None:
    """Check all files of dvc.lock and their copies in DVC's cache. Raises PipelineError as `check_inputs`."""
    _refuse_damage(locked_outs(), with_copies=True)


def is_edited(path: Path) -> bool:
    """Whether an out of dvc.lock is not as its stage wrote it."""
    return any(out.path == path and not out.is_intact() for out in locked_outs())


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


def file_md5(path: Path) -> str | None:
    """MD5 of a file, in hexadecimal; None if there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _lock_text() -> str:
    """The text of dvc.lock. DVC rewrites it in place, so this waits for DVC's own lock."""
    with suppress(OSError), Path(".dvc/tmp/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        return LOCK.read_text()
    return LOCK.read_text()


def _refuse_damage(outs: list[Out], with_copies: bool = False) -> None:
    """Raise PipelineError if a file of these outs is damaged or, `with_copies`, a copy in DVC's cache."""
    if not outs:
        return
    from dvc.exceptions import DvcException  # half a second, spent only if a file differs
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            found = [damaged for out in outs for damaged in _damaged_files(out, repo, with_copies)]
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error
    if found:
        files = {file: md5 for file, md5, _ in found}
        steps = sorted(dict.fromkeys(command for *_, command in found), key=REPRO.__eq__)
        command = " && ".join([shlex.join(["rm", "-f", *map(str, files)]), *steps])
        lines = [f"{file}: damaged: expected MD5 {files[file]}, received {file_md5(file)}" for file in files]
        raise PipelineError(f"{'; '.join(lines)}; run `{command}` in {Path.cwd()}")


def _damaged_files(out: Out, repo: "Repo", with_copies: bool) -> Iterator[Damaged]:
    """The damaged files of an out, the damaged listing of a folder and, `with_copies`, the damaged copies."""

    def cached(md5: str) -> Path:
        return Path(os.path.relpath(repo.cache.local.oid_to_path(md5)))

    files = {out.path: out.md5}  # those that DVC would check out
    if out.md5.endswith(FOLDER):
        listing, md5 = cached(out.md5), out.md5.removesuffix(FOLDER)
        if (found := file_md5(listing)) == md5:
            entries = json.loads(listing.read_bytes())
            files = {out.path / entry["relpath"]: entry["md5"] for entry in entries}
        else:
            files = out.digests() if out.is_intact() else {}
            if found:
                yield listing, md5, REPRO
    for file, received in out.digests().items():
        _, recorded = repo.state.get(str(file.absolute()), repo.fs)
        if recorded is None or recorded.value == received:
            continue  # an edit, or as DVC last saw it
        copy, md5 = cached(recorded.value), recorded.value
        restorable = files.get(file) == md5 == file_md5(copy)
        yield file, md5, shlex.join(["dvc", "checkout", str(file)]) if restorable else REPRO
        if file_md5(copy) not in {md5, None}:
            yield copy, md5, REPRO
    for file, md5 in files.items() if with_copies else ():
        if file_md5(copy := cached(md5)) not in {md5, None}:
            yield copy, md5, shlex.join(["cp", str(file), str(copy)]) if file_md5(file) == md5 else REPRO
