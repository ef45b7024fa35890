"""Where a run was begun: the folder, its commit, and DVC's experiment."""

import os
import subprocess
import uuid
from pathlib import Path

from pipeline.support.digests import digest_of
from pipeline.support.locks import locked
from pipeline.support.paths import WORKSPACE


def origin() -> dict[str, str]:
    """The tags that say where a run was begun: the folder, its commit, and DVC's experiment, if any."""
    experiment = os.environ.get("DVC_EXP_NAME")
    named = {"dvc_experiment": experiment} if experiment else {}
    return {"workspace": workspace(), "git_commit": git_commit()} | named


def workspace() -> str:
    """A name for this folder, which distinguishes its runs from those of others in the same store."""
    with locked("workspace"):
        if not WORKSPACE.is_file():
            WORKSPACE.write_text(uuid.uuid4().hex)
    return digest_of([WORKSPACE.read_text(), str(Path.cwd())])  # a copy of the folder is another one


def git_commit() -> str:
    """The commit that is checked out, with "-dirty" if files differ from it; "none" outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() if described.returncode == 0 else "none"
