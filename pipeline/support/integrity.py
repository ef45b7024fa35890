"""Compare files with dvc.lock and restore damaged ones. Each stage checks its inputs before it reads them.

    python -m pipeline integrity

Reads dvc.lock, every file that it lists and every file of DVC's cache. DVC itself does not read a file again
if its inode, size and modification time are unchanged, and never checks its cache, so it misses silent
corruption. Such a file is restored from DVC's cache, or a file of the cache from the workspace. If
no intact copy is left, the damaged ones are removed, so `dvc repro` makes the file again.

A change that DVC sees is an edit. It is reported and left alone, because DVC handles it.
"""

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.support.dvc_lock import FOLDER, LOCK, Out, file_md5, locked_outs, md5_of
from pipeline.support.errors import PipelineError, in_a_line

if TYPE_CHECKING:
    from dvc.repo import Repo


@click.command()
def main() -> None:
    """Check and restore everything. Raises PipelineError if a file is lost."""
    _raise_if_lost(check_everything())
    found = "all files are intact" if LOCK.is_file() else f"nothing checked: there is no {LOCK}"
    print(f"integrity: {found}")


def mend_everything() -> None:
    """Check and restore everything before a `dvc repro`, which makes lost files again."""
    for line in check_everything():
        print(f"{line}; removed, and will be made again")


def check_inputs(*paths: Path) -> None:
    """Check the files of dvc.lock that are at, in or around these paths, and restore damaged ones.

    Raises PipelineError with the name of every file without an intact copy. Does nothing without a dvc.lock.
    """
    damaged = [
        out
        for out in locked_outs()
        if any(out.path.is_relative_to(path) or path.is_relative_to(out.path) for path in paths)
        and not out.is_intact()
    ]
    if damaged:
        with _repo() as repo:
            _raise_if_lost([line for out in damaged for line in _restore_out(out, repo)])


def check_everything() -> list[str]:
    """Check and restore all files of dvc.lock and of DVC's cache. Returns a line for each lost file."""
    outs = locked_outs()
    if not outs:
        return []
    with _repo() as repo:
        lost = [line for out in outs if not out.is_intact() for line in _restore_out(out, repo)]
        return lost + _restore_cache(Path(os.path.relpath(repo.cache.local.path)), outs)


def _restore_cache(cache: Path, outs: list[Out]) -> list[str]:
    """Restore damaged files of DVC's cache from `outs`, or remove them. Returns a line for each lost file."""
    lost = []
    for file in sorted(cache.glob("??/*")):
        md5 = (file.parent.name + file.name).removesuffix(FOLDER)
        if re.fullmatch(r"[0-9a-f]{32}", md5) and file_md5(file) != md5:
            copies = (content for out in outs if (content := out.content(md5)) is not None)
            lost += _restore(file, md5, next(copies, None), "the workspace", file.parent)
    return lost


def _restore_out(out: Out, repo: "Repo") -> list[str]:
    """Restore the damaged files of an out that differs from dvc.lock. Returns a line for each lost file."""
    lost = []
    for file, found in out.digests().items():
        _, recorded = repo.state.get(str(file.absolute()), repo.fs)
        if recorded is None or recorded.value == found:
            continue  # an edit, or as DVC last saw it
        cached = _cached(recorded.value, repo)
        content = cached.read_bytes() if cached.is_file() else None
        if lines := _restore(file, recorded.value, content, "DVC's cache", out.path.parent):
            cached.unlink(missing_ok=True)
            lost += lines
        else:
            repo.state.save(str(file.absolute()), repo.fs, recorded)  # or new damage would look like an edit
    return lost if lost or out.is_intact() else _explain_difference(out, _cached(out.md5, repo))


def _explain_difference(out: Out, listing: Path) -> list[str]:
    """Remove the cached listing of a folder if it is damaged, and report an edit otherwise."""
    md5 = out.md5.removesuffix(FOLDER)
    if out.path.is_dir() and listing.is_file() and file_md5(listing) != md5:
        return [f"{_remove(listing, md5)}, so files of {out.path} may be missing"]
    print(f"{out.path}: changed since {LOCK} was written; `dvc checkout --force {out.path}` restores it")
    return []


def _restore(file: Path, md5: str, copy: bytes | None, origin: str, folder: Path) -> list[str]:
    """Replace a damaged file by its copy, by way of a temporary file in `folder`.

    If there is no intact copy, removes the file and returns a line that says so.
    """
    if copy is None or md5_of(copy) != md5:
        return [_remove(file, md5)]
    partial = folder / f".{file.name}.{os.getpid()}"
    partial.write_bytes(copy)
    shutil.copymode(file, partial)
    partial.replace(file)
    print(f"{file}: damaged, restored from {origin}")
    return []


def _repo() -> "Repo":
    from dvc.exceptions import DvcException  # half a second, spent only if a file differs
    from dvc.repo import Repo

    try:
        return Repo()
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error


def _cached(md5: str, repo: "Repo") -> Path:
    return Path(os.path.relpath(repo.cache.local.oid_to_path(md5)))


def _remove(file: Path, md5: str) -> str:
    """Remove a damaged file, and return a line that says so."""
    line = f"{file}: damaged: expected MD5 {md5}, received {file_md5(file)}"
    file.unlink()
    return line


def _raise_if_lost(lost: list[str]) -> None:
    if lost:
        raise PipelineError(
            f"{'; '.join(lost)}; removed because no intact copy is left: run `dvc repro` to make it again"
        )
