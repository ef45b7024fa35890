"""Bytes that change by themselves, modification times kept: found before they are used, mended or told."""

import fcntl
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.exceptions import CheckoutError
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.data import dvc_lock
from pipeline.errors import PipelineError
from pipeline.integrity import check_everything, check_inputs
from pipeline.paths import CHAMPION, EVALUATION, METRICS, MODELS, PRECISION, PREPARED, RAW, REPORTS
from tests.conftest import Clone

pytestmark = pytest.mark.timeout(900)  # the first test waits for the quickstart

DATA = (RAW, PREPARED, PRECISION, MODELS, METRICS, EVALUATION, CHAMPION, REPORTS)
CACHE = Path(".dvc/cache/files/md5")
IMAGES = RAW / "train_images.npy"


def flip(path: Path, chance: random.Random) -> None:
    """Change one byte of a file, and neither its inode, size, mode nor times."""
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


def cached(path: Path) -> Path:
    """DVC's copy of a whole file."""
    md5 = dvc_lock.file_md5(path)
    return CACHE / md5[:2] / md5[2:]


def listing_of(folder: Path) -> Path:
    """DVC's listing of a folder that dvc.lock has."""
    [md5] = [out.md5 for out in dvc_lock.locked_outs() if out.path == folder]
    return CACHE / md5[:2] / md5[2:]


@dataclass(frozen=True)
class Job:
    """A finished job, as the working directory, with the bytes that all its files had at first."""

    clone: Clone
    content: dict[Path, bytes]

    def restore(self) -> None:
        """Put back whatever is not as it was: DVC's cache, and from it the rest."""
        found = {path: path.read_bytes() for path in files_of(CACHE)}
        kept = {path: content for path, content in self.content.items() if CACHE in path.parents}
        for path in found.keys() - kept.keys():
            path.unlink()
        for path, content in kept.items() - found.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)
        for path, content in self.content.items():
            if path.is_file() and path.read_bytes() != content:
                path.unlink()
        with Repo() as repo:
            repo.checkout(force=True)
        self.assert_as_it_was()

    def assert_as_it_was(self) -> None:
        assert {path: path.read_bytes() for path in files_of(*DATA, CACHE)} == self.content

    def repro(self, *arguments: str) -> tuple[int, str]:
        """The exit status and the output of `dvc repro`."""
        done = self.clone.run("dvc", "repro", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Job:
    copy = clone.copy_quickstart(tmp_path_factory.mktemp("job"))
    assert "up to date" in copy.run("dvc", "status").stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy.folder)
        return Job(copy, {path: path.read_bytes() for path in files_of(*DATA, CACHE)})


@pytest.fixture
def job(finished: Job, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """The finished job, put back afterwards."""
    monkeypatch.chdir(finished.clone.folder)
    params, lock = Path("params.yaml").read_bytes(), Path("dvc.lock").read_bytes()
    yield finished
    monkeypatch.chdir(finished.clone.folder)
    Path("params.yaml").write_bytes(params)
    Path("dvc.lock").write_bytes(lock)
    finished.restore()


def lost(*paths: Path) -> str:
    """What is said of data that cannot be mended, in one line."""
    with pytest.raises(PipelineError) as caught:
        check_inputs(*paths)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("removed, as there is no good copy: run `dvc repro` to make it again")
    return str(caught.value)


# Two hundred flips.


def flip_and_check(job: Job, chance: random.Random, checkouts: float) -> str:
    """Damage one file and let it be used; what became of it. A part of DVC's copies are used by checkout."""
    place = chance.choice([*DATA, CACHE, CACHE, CACHE])
    path = chance.choice(files_of(place))
    flip(path, chance)
    assert path.read_bytes() != job.content[path]
    if place != CACHE:
        check_inputs(place)
        assert path.read_bytes() == job.content[path], path
        return "restored from the cache"
    if chance.random() >= checkouts:
        assert check_everything() == []
        assert path.read_bytes() == job.content[path], path
        return "restored from the workspace"
    return use_by_checkout(job, path)


def use_by_checkout(job: Job, damaged: Path) -> str:
    """Let DVC put its damaged copy in the place of what it is a copy of, and a stage read that."""
    twins = [path for path in files_of(*DATA) if damaged in (cached(path), cached_listing(path))]
    for path in twins:
        path.unlink()
    try:
        with Repo() as repo:
            repo.checkout(force=True)
    except CheckoutError:
        told = "refused by DVC"
    else:
        if damaged.suffix == ".dir" and all(job.content[path] == path.read_bytes() for path in twins):
            told = "not used, as DVC keeps listings elsewhere too"
        else:
            told = "named"
            line = lost(*DATA)
            assert any(str(path) in line for path in (*twins, damaged)), line
    assert not any(path.is_file() and path.read_bytes() != job.content[path] for path in twins)
    job.restore()
    return told


def cached_listing(path: Path) -> Path | None:
    """DVC's listing of the folder that a file is of, where it is of one."""
    folders = [out.path for out in dvc_lock.locked_outs() if out.path in path.parents]
    return listing_of(folders[0]) if folders else None


def flips(job: Job, count: int, checkouts: float) -> Counter[str]:
    """Damage so many files, one after another, and put each back; how often what became of them."""
    chance = random.Random(count)
    found: Counter[str] = Counter()
    for _ in range(count):
        found[flip_and_check(job, chance, checkouts)] += 1
        job.assert_as_it_was()
    return found


def test_twenty_flips_are_found_and_mended(job: Job) -> None:
    found = flips(job, 20, checkouts=0)
    assert set(found) == {"restored from the cache", "restored from the workspace"}


@pytest.mark.faults
def test_two_hundred_flips_are_found(job: Job) -> None:
    found = flips(job, 200, checkouts=0.5)
    assert found.total() == 200
    assert {"restored from the cache", "restored from the workspace", "named"} <= set(found)


# One after another.


def test_data_as_they_were_say_nothing(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    check_inputs(*DATA)
    assert check_everything() == []
    assert capsys.readouterr().out == ""
    job.assert_as_it_was()


def test_a_restored_file_is_told(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    flip(IMAGES, random.Random(0))
    check_inputs(PREPARED)
    assert capsys.readouterr().out == ""
    check_inputs(IMAGES)
    assert capsys.readouterr().out == f"{IMAGES}: damaged, restored from DVC's cache\n"
    job.assert_as_it_was()


def test_a_restored_file_that_is_damaged_again_is_restored_again(job: Job) -> None:
    for seed in range(3):
        flip(PRECISION, random.Random(seed))
        check_inputs(PRECISION)
        job.assert_as_it_was()


@pytest.mark.usefixtures("job")
def test_damage_in_both_copies_is_named_and_removed() -> None:
    copies = [path for file in (IMAGES, RAW / "manifest.json") for path in (file, cached(file))]
    for path in copies:
        flip(path, random.Random(0))
    told = lost(RAW)
    for file in copies[::2]:
        assert f"{file}: damaged: expected MD5 " in told
    assert not any(path.exists() for path in copies)


def test_an_edit_is_told_and_left_alone(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(MODELS.glob("*/history.csv"))
    path.write_text("epoch,loss\n1,0.5\n")
    (RAW / "notes.txt").write_text("mine")
    check_inputs(MODELS, RAW)
    assert set(capsys.readouterr().out.splitlines()) == {
        f"{folder}: changed since dvc.lock was written" for folder in (RAW, path.parent)
    }
    assert path.read_text() == "epoch,loss\n1,0.5\n"
    (RAW / "notes.txt").unlink()
    path.write_bytes(job.content[path])


def test_damage_beside_an_edit_is_mended(job: Job) -> None:
    folder = next(MODELS.iterdir())
    (folder / "history.csv").write_text("mine")
    flip(folder / "model.keras", random.Random(0))
    check_inputs(folder)
    assert (folder / "model.keras").read_bytes() == job.content[folder / "model.keras"]
    assert (folder / "history.csv").read_text() == "mine"


def test_without_a_lock_there_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_inputs(*DATA)
    assert check_everything() == []


def test_an_empty_lock_is_none_as_for_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").touch()
    check_inputs(*DATA)


@pytest.mark.usefixtures("job")
def test_data_outside_dvc_that_differ_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RAW, tmp_path / RAW)
    shutil.copy("dvc.lock", tmp_path)
    monkeypatch.chdir(tmp_path)
    check_inputs(RAW)
    flip(IMAGES, random.Random(0))
    with pytest.raises(PipelineError, match=r"^dvc: you are not inside of a DVC repository"):
        check_inputs(RAW)


@pytest.mark.parametrize(
    "content", ["schema: '2.0'\n", "stages:\n- one\n", "stages: {a: {outs: [{hash: md5}]}}", "\t", "\x00"]
)
@pytest.mark.usefixtures("job")
def test_a_damaged_lock_is_refused_in_one_line(content: str) -> None:
    Path("dvc.lock").write_text(content)
    with pytest.raises(PipelineError, match=r"^dvc\.lock: cannot be read: .*; `git checkout dvc\.lock`"):
        check_inputs(RAW)


@pytest.mark.usefixtures("job")
def test_a_lock_that_dvc_is_writing_is_waited_for() -> None:
    whole = Path("dvc.lock").read_text()
    with Path(".dvc/tmp/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        Path("dvc.lock").write_text(whole[:100])
        found: list[list[dvc_lock.Out]] = []
        reader = threading.Thread(target=lambda: found.append(dvc_lock.locked_outs()))
        reader.start()
        time.sleep(0.2)
        assert found == []
        Path("dvc.lock").write_text(whole)
    reader.join()
    assert found == [dvc_lock.locked_outs()]
    assert len(found[0]) > 20


# As a user meets it.


def split_anew(job: Job) -> None:
    """Change params.yaml so that `prepare` has to run."""
    params = YAML(typ="safe").load(Path("params.yaml"))
    params["split"]["seed"] += 1
    YAML().dump(params, Path("params.yaml"))
    assert "prepare" in job.clone.run("dvc", "status").stdout


def test_a_stage_mends_its_input_and_runs(job: Job) -> None:
    split_anew(job)
    flip(IMAGES, random.Random(0))
    status, output = job.repro("prepare")
    assert (status, f"{IMAGES}: damaged, restored from DVC's cache" in output) == (0, True), output
    assert IMAGES.read_bytes() == job.content[IMAGES]


@pytest.mark.faults
def test_the_printed_way_out_of_damage_in_both_copies_works(job: Job) -> None:
    split_anew(job)
    flip(cached(IMAGES), random.Random(0))
    flip(IMAGES, random.Random(1))
    status, output = job.repro("prepare")
    assert status
    assert f"error: {IMAGES}: damaged: expected MD5 " in output
    assert "Traceback" not in output
    status, output = job.repro("prepare")
    assert (status, "Running stage 'fetch'" in output) == (0, True), output
    assert IMAGES.read_bytes() == job.content[IMAGES]
    assert cached(IMAGES).read_bytes() == job.content[IMAGES]


@pytest.mark.faults
def test_a_model_that_dvc_restored_damaged_is_named_and_trained_again(job: Job) -> None:
    model = MODELS / "shallow-0" / "model.keras"
    flip(cached(model), random.Random(0))
    shutil.rmtree(model.parent)
    job.clone.run("dvc", "checkout", "--force", "train@shallow-0")
    assert model.read_bytes() != job.content[model]
    status, output = job.repro("--force", "--single-item", "evaluate@shallow-0")
    assert status
    assert f"error: {model}: damaged: expected MD5 " in output
    status, output = job.repro("evaluate@shallow-0")
    assert (status, "Running stage 'train@shallow-0'" in output) == (0, True), output
    assert model.read_bytes() == job.content[model]


@pytest.mark.faults
def test_a_folder_that_dvc_restored_by_a_damaged_listing_is_named_and_made_again(job: Job) -> None:
    listing = listing_of(RAW)
    content = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(content.replace(b"test_labels", b"test_label5"))
    listing.chmod(0o444)
    shutil.rmtree(RAW)
    job.clone.run("dvc", "checkout", "--force", "fetch")
    assert (RAW / "test_label5.npy").is_file()
    status, output = job.repro("--force", "--single-item", "prepare")
    assert status
    assert f"error: {listing}: damaged: expected MD5 " in output
    assert job.repro("prepare")[0] == 0
    assert listing.read_bytes() == content
    assert not (RAW / "test_label5.npy").exists()


def test_the_command_mends_workspace_and_cache(job: Job) -> None:
    damaged = [REPORTS / "report.md", cached(IMAGES), listing_of(RAW)]
    for path in damaged:
        flip(path, random.Random(0))
    done = job.clone.run(sys.executable, "-m", "pipeline.integrity")
    *mended, last = done.stdout.splitlines()
    assert last == "integrity: all files are what dvc.lock and DVC's cache say"
    assert len(mended) == len(damaged)
    job.assert_as_it_was()


@pytest.mark.faults
def test_a_run_with_nothing_to_do_mends_too_and_makes_again_what_is_lost(job: Job) -> None:
    balance = PREPARED / "class_balance.csv"
    flip(cached(balance), random.Random(0))
    flip(balance, random.Random(1))
    flip(REPORTS / "report.html", random.Random(0))
    done = job.clone.run(sys.executable, "-m", "pipeline.repro", "--jobs=1")
    assert f"{REPORTS / 'report.html'}: damaged, restored from DVC's cache\n" in done.stdout
    assert f"{balance}: damaged: expected MD5 " in done.stdout
    assert "plan: prepare\n" in done.stdout
    assert balance.read_bytes() == job.content[balance]
