"""Compare files with dvc.lock and restore damaged ones. Each stage checks its inputs before it reads them.

    python -m pipeline.integrity

Reads dvc.lock, every file that it lists and every file of DVC's cache. DVC itself does not read a file again
if its inode, size and modification time are unchanged, and never checks its cache, so it misses bytes that
changed by themselves. Such a file is restored from DVC's cache, or a file of the cache from the workspace. If
no intact copy is left, the damaged ones are removed, so `dvc repro` makes the file again.

A change that DVC sees is an edit. It is reported and left alone, because DVC handles it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.shared.dvc_lock import FOLDER, LOCK, Out, file_md5, locked_outs, md5_of
from pipeline.shared.errors import PipelineError, in_a_line, one_line_errors

if TYPE_CHECKING:
    from dvc.repo import Repo


@one_line_errors
def main() -> None:
    """Check and restore everything. Raises PipelineError if a file is lost."""
    _raise_if_lost(check_everything())
    print("integrity: all files match dvc.lock and DVC's cache")


def mend_everything() -> None:
    """Check and restore everything before a `dvc repro`, which makes lost files again."""
    for line in check_everything():
        print(f"{line}; removed, to be made again")


def check_inputs(*paths: Path) -> None:
    """Check the files of dvc.lock that are at, in or around these paths, and restore damaged ones.

    Raises PipelineError with the name of every file without an intact copy. Does nothing without a dvc.lock.
    """
    outs = [
        out
        for out in locked_outs()
        if any(out.path.is_relative_to(path) or path.is_relative_to(out.path) for path in paths)
    ]
    _raise_if_lost(restore_workspace(outs))


def check_everything() -> list[str]:
    """Check and restore all files of dvc.lock and of DVC's cache. Returns a line for each lost file."""
    outs = locked_outs()
    if not outs:
        return []
    lost = restore_workspace(outs)
    with _repo() as repo:
        return lost + restore_cache(Path(os.path.relpath(repo.cache.local.path)), outs)


def restore_workspace(outs: Iterable[Out]) -> list[str]:
    """Restore damaged files from DVC's cache, or remove them. Returns a line for each lost file."""
    changed = [out for out in outs if not out.is_intact()]
    if not changed:
        return []
    with _repo() as repo:
        return [line for out in changed for line in _restore_out(out, repo)]


def restore_cache(cache: Path, outs: Iterable[Out]) -> list[str]:
    """Restore damaged files of DVC's cache from `outs`, or remove them. Returns a line for each lost file."""
    lost = []
    for file in sorted(cache.glob("??/*")):
        md5 = (file.parent.name + file.name).removesuffix(FOLDER)
        if not re.fullmatch(r"[0-9a-f]{32}", md5) or (found := file_md5(file)) == md5:
            continue
        if _replace(file, _content_of_outs(md5, outs), md5, file.parent):
            file.chmod(0o444)  # the mode that DVC gives its copies
            print(f"{file}: damaged, restored from the workspace")
        else:
            lost.append(_damaged(file, md5, found))
    return lost


def _restore_out(out: Out, repo: "Repo") -> list[str]:
    """Restore the damaged files of an out that differs from dvc.lock. Returns a line for each lost file."""
    lost = []
    for file, found in out.digests().items():
        _, recorded = repo.state.get(str(file.absolute()), repo.fs)
        if recorded is None or recorded.name != "md5" or recorded.value == found:
            continue  # an edit, or as DVC last saw it
        cached = _cached(recorded.value, repo)
        if _replace(file, cached.read_bytes() if cached.is_file() else None, recorded.value, out.path.parent):
            repo.state.save(str(file.absolute()), repo.fs, recorded)  # or new damage would look like an edit
            print(f"{file}: damaged, restored from DVC's cache")
        else:
            cached.unlink(missing_ok=True)
            lost.append(_damaged(file, recorded.value, found))
    return lost if lost or out.is_intact() else _explain_difference(out, _cached(out.md5, repo))


def _explain_difference(out: Out, listing: Path) -> list[str]:
    """Remove the cached listing of a folder if it is damaged, and report an edit otherwise."""
    md5 = out.md5.removesuffix(FOLDER)
    if out.path.is_dir() and listing.is_file() and (found := file_md5(listing)) != md5:
        listing.unlink()
        return [f"{_damaged(listing, md5, found)}, so files of {out.path} may be missing"]
    print(f"{out.path}: changed since {LOCK} was written; `dvc checkout --force {out.path}` restores it")
    return []


def _content_of_outs(md5: str, outs: Iterable[Out]) -> bytes | None:
    """The content in the workspace that has this MD5: of a file, or the listing of a folder."""
    for out in outs:
        digests = out.digests()
        listing = out.listing(digests)
        if md5_of(listing) == md5:
            return listing
        for file, found in digests.items():
            if found == md5:
                return file.read_bytes()
    return None


def _replace(file: Path, content: bytes | None, md5: str, folder: Path) -> bool:
    """Replace a file, by way of a temporary file in `folder`, or remove it if the content lacks this MD5."""
    if content is None or md5_of(content) != md5:
        file.unlink()
        return False
    partial = folder / f".{file.name}.{os.getpid()}"
    partial.write_bytes(content)
    partial.replace(file)
    return True


def _repo() -> "Repo":
    from dvc.exceptions import DvcException  # half a second, spent only if a file differs
    from dvc.repo import Repo

    try:
        return Repo()
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error


def _cached(md5: str, repo: "Repo") -> Path:
    return Path(os.path.relpath(repo.cache.local.oid_to_path(md5)))


def _damaged(file: Path, md5: str, found: str) -> str:
    return f"{file}: damaged: expected MD5 {md5}, received {found}"


def _raise_if_lost(lost: list[str]) -> None:
    if lost:
        raise PipelineError(
            f"{'; '.join(lost)}; removed because no intact copy is left: run `dvc repro` to make it again"
        )


if __name__ == "__main__":
    main()
