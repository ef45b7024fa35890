"""Damage that leaves size and times as they were is found, and the printed command repairs it."""

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
from pipeline.support.integrity import Out, check_everything, check_inputs, file_md5, locked_outs
from pipeline.support.paths import PREPARED, RAW, REPORTS
from tests.conftest import Clone, refusal
from tests.projects import Project, before_training, copied, keep_stages, small_params

CACHE = Path(".dvc/cache/files/md5")
LABELS, SAMPLES = RAW / "train_labels.npy", PREPARED / "samples.png"


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
    md5 = file_md5(path) or next(out.md5 for out in locked_outs() if out.path == path)
    return CACHE / md5[:2] / md5[2:]


def everything() -> dict[Path, bytes]:
    """The content of all outs and of DVC's cache."""
    return {path: path.read_bytes() for path in files_of(*outs(), CACHE)}


@dataclass(frozen=True)
class Whole:
    """A project with finished stages as the working directory, and the content of all its files."""

    job: Project
    content: dict[Path, bytes]

    def repair(self, line: str, *damaged: Path) -> str:
        """Run the command of a refusal that names exactly these files. Returns the command."""
        found = re.fullmatch(r"(?:error: )?(.*); run `(.*)` in (.*)", line)
        assert found
        named, command, folder = found.groups()
        assert sorted(re.findall(r"(\S+): damaged: expected MD5 \w{32}, received \w{32}", named)) == sorted(
            map(str, damaged)
        )
        assert folder == str(self.job.folder)
        self.job.run("sh", "-c", command)
        assert everything() == self.content
        check_everything()
        return command


def opened(job: Project, monkeypatch: pytest.MonkeyPatch) -> Whole:
    monkeypatch.chdir(job.folder)
    with Repo() as repo:
        repo.status()  # which DVC needs in a copy, to know its files
    return Whole(job, everything())


@pytest.fixture(scope="module")
def finished(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder in which `fetch` and `prepare` have run, and whose dvc.yaml has no other stages."""
    job = before_training(clone, tmp_path_factory.mktemp("finished") / "job", small_params(shallow={}))
    keep_stages(job.folder, "fetch", "prepare")
    return job


@pytest.fixture
def project(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    return opened(copied(finished, tmp_path / "copy"), monkeypatch)


@pytest.fixture
def whole(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A project in which all stages have run."""
    return opened(copied(Project(clone.folder / "quickstart"), tmp_path / "copy"), monkeypatch)


# The printed command


def test_a_stage_refuses_damaged_files_until_they_are_checked_out_again(project: Whole) -> None:
    check_inputs(*outs())
    check_everything()
    for file in (LABELS, SAMPLES):  # in a folder and of its own
        flip(file)
    check_inputs(PREPARED / "split")
    line = refusal(check_inputs, RAW, SAMPLES)
    checked_out = f"dvc checkout {LABELS} && dvc checkout {SAMPLES}"
    assert project.repair(line, LABELS, SAMPLES) == f"rm -f {LABELS} {SAMPLES} && {checked_out}"
    flip(LABELS, 1)  # a restored file can be damaged again
    project.repair(refusal(main, ["prepare"]), LABELS)
    main(["prepare"])


def test_files_that_dvc_restored_from_damaged_copies_are_made_again(project: Whole) -> None:
    damaged = [LABELS, cached(LABELS), SAMPLES, cached(SAMPLES)]
    for copy in damaged[1::2]:
        flip(copy)
    for file in damaged[::2]:
        file.unlink()
    with Repo() as repo:
        repo.checkout(force=True)
    line = refusal(check_inputs, *outs())
    assert project.repair(line, *damaged) == f"rm -f {' '.join(map(str, damaged))} && dvc repro"


def test_a_damaged_copy_is_copied_from_the_workspace(project: Whole) -> None:
    flip(copy := cached(LABELS))
    check_inputs(*outs())
    assert project.repair(refusal(check_everything), copy) == f"rm -f {copy} && cp {LABELS} {copy}"


def test_a_damaged_copy_of_a_missing_file_and_a_damaged_listing_are_made_again(project: Whole) -> None:
    copy, listing = cached(SAMPLES), cached(RAW)
    for path in (copy, listing):
        flip(path)
    SAMPLES.unlink()
    line = refusal(check_everything)
    assert project.repair(line, copy, listing) == f"rm -f {listing} {copy} && dvc repro"


@pytest.mark.faults
def test_a_folder_that_dvc_restored_by_a_damaged_listing_is_made_again(project: Whole) -> None:
    listing = cached(RAW)
    listing.chmod(0o644)
    listing.write_bytes(project.content[listing].replace(b"test_labels", b"test_label5"))
    listing.chmod(0o444)
    shutil.rmtree(RAW)
    with Repo() as repo:
        repo.checkout(force=True)
    assert (RAW / "test_label5.npy").is_file()
    project.repair(refusal(check_inputs, RAW), listing)


@pytest.mark.faults
def test_random_damage_is_found_and_repaired(whole: Whole) -> None:
    chance = random.Random(0)
    for seed in range(0, 100, 10):  # ten at a time
        damaged = chance.sample(files_of(*chance.choice([outs(), [CACHE]])), 10)
        for number, path in enumerate(damaged):
            flip(path, seed + number)
        whole.repair(refusal(check_everything), *damaged)


# What is not refused


def test_edits_and_the_objects_of_other_projects_in_a_shared_cache_are_left_alone(project: Whole) -> None:
    LABELS.unlink()
    os.truncate(RAW / "train_batches.npy", 5000)
    SAMPLES.write_text("edited")
    (RAW / "notes.txt").write_text("mine")
    other = CACHE / "00" / ("0" * 30)
    other.parent.mkdir(exist_ok=True)
    other.write_text("damaged")
    edited = everything()
    check_inputs(*outs())
    check_everything()
    flip(file := RAW / "test_labels.npy")  # beside them
    command = re.findall("`(.*)`", refusal(check_inputs, RAW))[0]
    assert command == f"rm -f {file} && dvc checkout {file}"
    project.job.run("sh", "-c", command)
    assert everything() == edited


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


# make repro


@pytest.mark.faults
def test_make_repro_refuses_damage_before_it_plans(whole: Whole) -> None:
    balance, report = PREPARED / "class_balance.csv", REPORTS / "report.html"
    damaged = (cached(balance), balance, report)
    for path in damaged:
        flip(path)
    line = whole.job.run(sys.executable, "-m", "pipeline", "repro", "--jobs=1", check=False).rstrip()
    whole.repair(line, *damaged)
    printed = whole.job.run(sys.executable, "-m", "pipeline", "repro", "--jobs=1")
    assert "plan: nothing to run: everything is up to date" in printed
