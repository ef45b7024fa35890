"""Whether the data are still those that DVC wrote down: each stage asks before it reads them.

    python -m pipeline.integrity

Reads dvc.lock, every file that it lists and every file of DVC's cache. DVC goes by inode, size and mtime, and
so takes a file whose bytes changed by themselves for what it was; its cache it does not check at all.
A damaged file is restored from DVC's cache, and a damaged file of the cache from the workspace. Where no good
copy is left, the damaged ones are named and removed, so that `dvc repro` makes them again.

Damage is what DVC cannot see: other bytes in a file that it takes for unchanged. A change that DVC sees is
an edit, to which DVC itself answers: here it is told and left alone.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.dvc_lock import FOLDER, LOCK, Out, file_md5, locked_outs, md5_of
from pipeline.errors import PipelineError, in_a_line, one_line_errors

if TYPE_CHECKING:
    from dvc.repo import Repo


@one_line_errors
def main() -> None:
    """Check everything; PipelineError for what is lost."""
    if lost := check_everything():
        raise PipelineError(in_one_line(lost))
    print("integrity: all files are what dvc.lock and DVC's cache say")


def mend_everything() -> None:
    """Check everything, and tell what is lost: for whoever runs `dvc repro` next, which makes it again."""
    for line in check_everything():
        print(f"{line}; removed, to be made again")


def check_inputs(*paths: Path) -> None:
    """Compare all that dvc.lock lists at, under or around these paths with it, before it is read.

    A damaged file is restored, which is told. Raises PipelineError, which names them, where some have no good
    copy. Where there is no dvc.lock there is nothing to compare with.
    """
    outs = [
        out
        for out in locked_outs()
        if any(out.path.is_relative_to(path) or path.is_relative_to(out.path) for path in paths)
    ]
    if lost := mend(outs):
        raise PipelineError(in_one_line(lost))


def check_everything() -> list[str]:
    """Mend what dvc.lock lists, then all of DVC's cache; what is lost, as `mend` gives it."""
    outs = locked_outs()
    if not outs:
        return []
    lost = mend(outs)
    with _repo() as repo:
        return lost + mend_cache(Path(os.path.relpath(repo.cache.local.path)), outs)


def mend(outs: Iterable[Out]) -> list[str]:
    """Restore damaged files from DVC's cache, and tell it; a line for each that is lost, and so removed."""
    changed = [out for out in outs if not out.is_intact()]
    if not changed:
        return []
    with _repo() as repo:
        return [line for out in changed for line in _mend_out(out, repo)]


def mend_cache(cache: Path, outs: Iterable[Out]) -> list[str]:
    """Restore damaged files of DVC's cache from the workspace; what is lost, as `mend` gives it."""
    content: dict[str, Path | bytes] = {}
    for out in outs:
        digests = out.digests()
        content |= {md5: file for file, md5 in digests.items()}
        listing = out.listing(digests)
        content[md5_of(listing) + FOLDER] = listing
    lost = []
    for file in sorted(cache.glob("??/*")):
        md5 = file.parent.name + file.name
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5) or _is(md5, found := file_md5(file)):
            continue
        if md5 in content and _put(content[md5], file, md5, beside=file.parent):
            file.chmod(0o444)  # as DVC has it
            print(f"{file}: damaged, restored from the workspace")
        else:
            file.unlink()
            lost.append(_damaged(file, md5, found))
    return lost


def in_one_line(lost: list[str]) -> str:
    """What is lost, and the way out."""
    return f"{'; '.join(lost)}; removed, as there is no good copy: run `dvc repro` to make it again"


def _mend_out(out: Out, repo: "Repo") -> list[str]:
    """Mend one out that is not what dvc.lock says; what is lost of it."""
    lost = []
    for file, found in out.digests().items():
        place = str(file.absolute())
        _, recorded = repo.state.get(place, repo.fs)
        if recorded is None or recorded.name != "md5" or recorded.value == found:
            continue
        cached = _cached(recorded.value, repo)
        if cached.is_file() and _put(cached, file, recorded.value, beside=out.path.parent):
            repo.state.save(place, repo.fs, recorded)  # or damage to it could not be told from an edit
            print(f"{file}: damaged, restored from DVC's cache")
        else:
            cached.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            lost.append(_damaged(file, recorded.value, found))
    if lost or out.is_intact():
        return lost
    listing = _cached(out.md5, repo)
    if out.path.is_dir() and listing.is_file() and not _is(out.md5, found := file_md5(listing)):
        listing.unlink()
        return [_damaged(listing, out.md5, found) + f", so that {out.path} may lack files"]
    print(f"{out.path}: changed since {LOCK} was written")
    return []


def _cached(md5: str, repo: "Repo") -> Path:
    return Path(os.path.relpath(repo.cache.local.oid_to_path(md5)))


def _put(source: Path | bytes, target: Path, md5: str, beside: Path) -> bool:
    """Write what has this MD5 in a target's place, all or nothing; whether the source does have it."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    if not _is(md5, md5_of(content)):
        return False
    partial = beside / f".{target.name}.{os.getpid()}"
    partial.write_bytes(content)
    partial.replace(target)
    return True


def _repo() -> "Repo":
    # Half a second, which is spent only where something is amiss.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Repo()
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error


def _is(md5: str, found: str) -> bool:
    return md5.removesuffix(FOLDER) == found


def _damaged(file: Path, md5: str, found: str) -> str:
    return f"{file}: damaged: expected MD5 {md5.removesuffix(FOLDER)}, received {found}"


if __name__ == "__main__":
    main()
