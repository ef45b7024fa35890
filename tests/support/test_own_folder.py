"""Folders that another user of the machine may have made or may write to: refused, or not used."""

import os
import tempfile
from pathlib import Path

import pytest

from pipeline.running import ray_task
from pipeline.support import locks, own_folder
from tests.conftest import refusal

OTHER = 65_534  # nobody's user id


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as /tmp is, and no home."""
    (tmp_path / "tmp").mkdir(mode=0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    return tmp_path / "tmp"


@pytest.fixture(params=["open", "linked", "others"])
def trap(request: pytest.FixtureRequest, shared: Path) -> Path:
    """The folder of the prepared data, made by somebody else, who can write to it."""
    made = shared / f"pipeline-data-{os.getuid()}"
    place = shared / "elsewhere" if request.param == "linked" else made
    place.mkdir()
    if request.param == "open":
        place.chmod(0o777)
    elif request.param == "linked":
        made.symlink_to(place)
    elif os.getuid():
        pytest.skip("only root gives a folder away")
    else:
        os.chown(place, OTHER, OTHER)
    (place / "victim").write_text("untouched")
    return made


def test_prepared_data_are_not_written_to_a_folder_of_somebody_else(trap: Path) -> None:
    line = refusal(ray_task.prepared, "victim", [])
    assert line.startswith(f"{trap}: must be a folder of user {os.getuid()} to which nobody else can write;")
    assert (trap / "victim").read_text() == "untouched"


def test_locks_lie_in_the_users_own_folder(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locks.locked_on_this_machine("without a home"):
        assert [path.name for path in shared.iterdir()] == [f"pipeline-{os.getuid()}"]
    monkeypatch.setenv("HOME", str(tmp_path))
    with locks.locked_on_this_machine("registry"):
        (folder,) = (tmp_path / ".cache").iterdir()
    assert folder == own_folder.cache()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert own_folder.cache().parent == shared
