"""Folders that belong to this user alone, outside the checkout.

In a folder such as /tmp anybody can make the folder or the lock that another user's process is about to use.
"""

import os
import stat
import tempfile
from pathlib import Path

from pipeline.support.errors import PipelineError


def own_folder(path: Path) -> Path:
    """Make a folder if it is missing, for this user alone.

    Raises PipelineError if it belongs to somebody else, is a link or a file, or if others can write to it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PipelineError(
            f"{path}: must be a folder of user {os.geteuid()} to which nobody else can write; received "
            f"{stat.filemode(found.st_mode)} of user {found.st_uid}; remove it, or set TMPDIR"
        )
    return path


def temporary(name: str) -> Path:
    """This user's folder of that name among the temporary ones. Raises PipelineError as `own_folder`."""
    return own_folder(Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}")


def cache() -> Path:
    """This user's folder for what all checkouts share: in ~/.cache, or a temporary one without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        return own_folder(home.absolute() / "pipeline")
    except (OSError, RuntimeError, PipelineError):  # read-only, unknown, or of another user, as with sudo
        return temporary("pipeline")
