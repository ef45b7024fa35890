"""Damage that leaves size and times as they were is found before a stage uses it, and restored."""

import fcntl
import os
import random
import re
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.__main__ import main
from pipeline.support.dvc_lock import Out, file_md5, locked_outs
from pipeline.support.integrity import check_everything, check_inputs
from pipeline.support.paths import MODELS, PREPARED, RAW, REPORTS
from tests.conftest import Clone, refusal
from tests.projects import Project, copied, make, small_params

CACHE = Path(".dvc/cache/files/md5")
IMAGES = RAW / "train_images.npy"
LABELS = RAW / "train_labels.npy"


def flip(path: Path, seed: int = 0) -> None:
    """Change one byte of a file but not its inode, size, mode or times."""
    chance = random.Random(seed)
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(position := chance.randrange(before.st_size))
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ chance.randrange(1, 256)]))
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def files_of(*places: Path) -> list[Path]:
    found = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def outs() -> list[Path]:
    return [out.path for out in locked_outs()]


def cached(path: Path) -> Path:
    """DVC's copy of an intact file, or its listing of a folder."""
    md5 = file_md5(path) if path.is_file() else next(out.md5 for out in locked_outs() if out.path == path)
    return CACHE / md5[:2] / md5[2:]


def check_out(*targets: str) -> None:
    """What `dvc checkout --force` does."""
    with Repo() as repo:
        repo.checkout(list(targets), force=True)


def everything() -> dict[Path, bytes]:
    """The content of all outs and of DVC's cache."""
    return {path: path.read_bytes() for path in files_of(*outs(), CACHE)}


@dataclass(frozen=True)
class Whole:
    """A project with finished stages as the working directory, and the content of all its files."""

    job: Project
    content: dict[Path, bytes]

    def assert_unchanged(self) -> None:
        assert everything() == self.content


def opened(job: Project, monkeypatch: pytest.MonkeyPatch) -> Whole:
    monkeypatch.chdir(job.folder)
    monkeypatch.setattr(sys, "argv", ["prepare"])
    with Repo() as repo:
        repo.status()  # which DVC needs in a copy, to know its files
    return Whole(job, everything())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder in which the stages `fetch` and `prepare` have run."""
    return make(tmp_path_factory.mktemp("finished"), small_params(shallow={}), "prepare")


@pytest.fixture
def project(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    return opened(copied(finished, tmp_path / "copy"), monkeypatch)


@pytest.fixture
def whole(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A project in which all stages have run."""
    return opened(copied(Project(clone.folder / "quickstart"), tmp_path / "copy"), monkeypatch)


def error_of(*paths: Path) -> str:
    """The error about files without an intact copy."""
    error = refusal(check_inputs, *paths)
    assert re.search(r"removed because .*: run `dvc repro` to make it again$", error)
    return error


# Many changes


@pytest.mark.parametrize(
    ("fixture", "flips"), [("project", 30), pytest.param("whole", 200, marks=pytest.mark.faults)]
)
def test_flips_in_the_workspace_and_in_the_cache_are_restored(
    fixture: str, flips: int, request: pytest.FixtureRequest
) -> None:
    project: Whole = request.getfixturevalue(fixture)
    chance = random.Random(flips)
    for seed in range(0, flips, 10):  # ten at a time
        damaged = chance.sample(files_of(*chance.choice([outs(), [CACHE]])), 10)
        for number, path in enumerate(damaged):
            flip(path, seed + number)
            assert path.read_bytes() != project.content[path]
        assert check_everything() == []
        project.assert_unchanged()


def test_files_that_dvc_restored_from_damaged_copies_are_named_and_removed(project: Whole) -> None:
    files = files_of(*outs())
    copies = {cached(path) for path in files}
    for path in copies:
        flip(path)
    for path in files:
        path.unlink()
    check_out("fetch", "prepare")
    assert all(path.read_bytes() != project.content[path] for path in files)
    error = error_of(*outs())
    assert all(f"{path}: damaged: expected MD5 " in error for path in files)
    assert not any(path.exists() for path in [*files, *copies])


# Single changes


def test_restoring_a_file_is_reported_when_it_is_an_input(
    project: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    check_inputs(*outs())
    assert check_everything() == []
    for seed in range(2):  # a restored file can be damaged again
        flip(IMAGES, seed)
        check_inputs(PREPARED)
        assert capsys.readouterr().out == ""
        check_inputs(IMAGES)
        assert capsys.readouterr().out == f"{IMAGES}: damaged, restored from DVC's cache\n"
        project.assert_unchanged()


def test_an_edit_is_reported_and_left_alone_and_damage_beside_it_restored(
    project: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    balance = PREPARED / "class_balance.csv"
    balance.write_text("class\n")
    (RAW / "notes.txt").write_text("mine")
    flip(LABELS)
    check_inputs(PREPARED, RAW)
    assert set(capsys.readouterr().out.splitlines()) == {
        f"{LABELS}: damaged, restored from DVC's cache",
        f"{RAW}: changed since dvc.lock was written; `dvc checkout --force {RAW}` restores it",
        f"{balance}: changed since dvc.lock was written; `dvc checkout --force {balance}` restores it",
    }
    assert everything() == project.content | {balance: b"class\n", RAW / "notes.txt": b"mine"}


@pytest.mark.parametrize("size", [None, 5000], ids=["missing", "cut off"])
def test_a_missing_or_truncated_file_is_an_edit_and_the_printed_command_restores_it(
    project: Whole, size: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    LABELS.unlink() if size is None else os.truncate(LABELS, size)
    check_inputs(RAW)
    assert f"`dvc checkout --force {RAW}`" in capsys.readouterr().out
    check_out(str(RAW))
    project.assert_unchanged()


# dvc.lock


@pytest.mark.parametrize(
    "content", ["schema: '2'", "stages: [a]", "stages: {a: {outs: [{hash: md5}]}}", "\t"]
)
def test_a_damaged_lock_is_refused_in_one_line(content: str, workplace: Path) -> None:
    (workplace / "dvc.lock").write_text(content)
    line = refusal(check_inputs, RAW)
    assert re.fullmatch(r"dvc\.lock: cannot be read: .*; `git checkout dvc\.lock` restores it", line)


@pytest.mark.usefixtures("project")
def test_reading_dvc_lock_waits_while_dvc_writes_it() -> None:
    expected = locked_outs()
    text = Path("dvc.lock").read_text()
    found: list[list[Out]] = []
    with Path(".dvc/tmp/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        Path("dvc.lock").write_text(text[:100])
        reader = threading.Thread(target=lambda: found.append(locked_outs()))
        reader.start()
        time.sleep(0.2)
        assert found == []
        Path("dvc.lock").write_text(text)
    reader.join()
    assert found == [expected]
    assert len(expected) > 5


# Commands and stages


def test_the_command_restores_workspace_and_cache(project: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = [PREPARED / "samples.png", cached(IMAGES), cached(RAW)]
    for path in damaged:
        flip(path)
    main(["integrity"])
    *restored, last = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(":")[0] for line in restored) == sorted(map(str, damaged))
    assert last == "integrity: all files are intact"
    project.assert_unchanged()


def test_a_stage_refuses_a_lost_input_and_the_printed_command_makes_it_again(project: Whole) -> None:
    for path in (cached(IMAGES), IMAGES):
        flip(path)
    assert re.match(f"error: {IMAGES}: damaged: expected MD5 .*: run `dvc repro`", refusal(main, ["prepare"]))
    assert "Running stage 'fetch'" in project.job.run("dvc", "repro", "prepare")
    project.assert_unchanged()


@pytest.mark.faults
def test_a_folder_that_dvc_restored_by_a_damaged_listing_is_named_and_made_again(project: Whole) -> None:
    listing = cached(RAW)
    listing.chmod(0o644)
    listing.write_bytes(project.content[listing].replace(b"test_labels", b"test_label5"))
    listing.chmod(0o444)
    shutil.rmtree(RAW)
    project.job.run("dvc", "checkout", "--force", "fetch")
    assert (RAW / "test_label5.npy").is_file()
    assert f"{listing}: damaged: expected MD5 " in error_of(RAW)
    project.job.run("dvc", "repro", "prepare")
    project.assert_unchanged()


@pytest.mark.faults
def test_a_model_that_dvc_restored_damaged_is_named_and_trained_again(whole: Whole) -> None:
    model = MODELS / "shallow-0" / "model.keras"
    flip(cached(model))
    shutil.rmtree(model.parent)
    whole.job.run("dvc", "checkout", "--force", "train@shallow-0")
    assert model.read_bytes() != whole.content[model]
    refused = whole.job.run("dvc", "repro", "--force", "--single-item", "predict@shallow-0", check=False)
    assert f"error: {model}: damaged: expected MD5 " in refused
    assert "Running stage 'train@shallow-0'" in whole.job.run("dvc", "repro", "predict@shallow-0")
    assert model.read_bytes() == whole.content[model]


@pytest.mark.faults
def test_make_repro_restores_files_and_makes_lost_ones_again(whole: Whole) -> None:
    balance, report = PREPARED / "class_balance.csv", REPORTS / "report.html"
    for path in (cached(balance), balance, report):
        flip(path)
    printed = whole.job.run(sys.executable, "-m", "pipeline", "repro", "--jobs=1")
    assert f"{report}: damaged, restored from DVC's cache\n" in printed
    assert f"{balance}: damaged: expected MD5 " in printed
    assert "prepare: 1,293 training, 144 validation images\n" in printed
    assert balance.read_bytes() == whole.content[balance]
