"""A full disk, a read-only one, no permission, no /dev/shm: one line, nothing lost, and then it goes on."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import jobs
from tests.jobs import NAME, Job

pytestmark = pytest.mark.timeout(900)

PARAMS = jobs.small_params(batchnorm={"epochs": 6})
STAGES = ("fetch", "prepare", "recipes", "train", "predict", "evaluate", "promote", "report")
# Of a full disk; with the second number a training begins.
BYTES_LEFT = {"recipes": [0], "predict": [0], "train": [20_000, 6_000_000]}
FORBIDDEN = {
    "prepare": ["params.yaml", "data/raw/train_images.npy", "data"],
    "train": ["data/prepared/train/manifest.json", "mlflow.db"],
    "predict": [f"models/{NAME}/model.keras"],
    "evaluate": [f"predictions/{NAME}/test.npy"],
    "report": ["champion.json"],
}
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root mounts disks")


def command(stage: str) -> list[str]:
    arguments = NAME.split("-") if stage in {"train", "predict"} else []
    return ["python", "-m", f"pipeline.{stage}", *arguments]


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose training had no fault."""
    return jobs.make(tmp_path_factory.mktemp("expected") / "job", PARAMS, f"train@{NAME}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk but for so many bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    return filler


def one_error(told: str) -> str:
    """The error that a command told, in one line, and no traceback."""
    assert "Traceback" not in told, told
    [line] = [line for line in told.splitlines() if line.startswith("error: ")]
    return line


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results(job: Job) -> dict[str, bytes]:
    return files(job.folder / "data") | files(job.folder / "models")


@needs_root
@pytest.mark.faults
def test_a_full_disk_is_told_and_with_room_each_stage_goes_on(disk: Path, expected: Job) -> None:
    job = jobs.make(disk / "job", PARAMS)
    for stage in STAGES:
        for left in BYTES_LEFT.get(stage, [100_000]):
            before = results(job)
            shutil.rmtree(job.folder / ".pipeline/checkpoints", ignore_errors=True)  # predict removes them
            filler = fill(disk, left)
            process = job.start(*command(stage))
            told, _ = process.communicate(timeout=300)
            assert process.returncode == 1, told
            assert "No space left" in one_error(told) or "full" in one_error(told), told
            assert before.items() <= results(job).items(), told
            filler.unlink()
        job.run(*command(stage))
    name = f"models/{NAME}/model.keras"
    assert (job.folder / name).read_bytes() == (expected.folder / name).read_bytes()


@needs_root
@pytest.mark.faults
def test_a_read_only_disk_is_told_and_nothing_changes(disk: Path) -> None:
    job = jobs.make(disk / "job", PARAMS)
    for stage in STAGES:
        before = files(job.folder)
        mount("-o", "remount,ro", str(disk))
        told = job.run(*command(stage), check=False, PYTHONDONTWRITEBYTECODE="1")
        assert "ead-only" in one_error(told) or "readonly" in one_error(told), told
        assert files(job.folder) == before, told
        mount("-o", "remount,rw", str(disk))
        job.run(*command(stage))


def refused(job: Job, stage: str, path: str) -> None:
    """Run a stage that may not read a file, or write to a folder, and see that it is named."""
    file = job.folder / path
    mode = stat.S_IMODE(file.stat().st_mode)
    file.chmod(0o500 if file.is_dir() else 0)
    # Root may read all: without these capabilities it is a user like any other.
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    told = job.run(*(drop if os.getuid() == 0 else []), *command(stage), check=False)
    file.chmod(mode)
    error = one_error(told)
    assert "ermission" in error or "unable to open" in error, told
    assert file.name in error or "MLFLOW_TRACKING_URI" in error, told


def test_params_without_permission_are_named(tmp_path: Path) -> None:
    job = jobs.make(tmp_path / "job", PARAMS)
    refused(job, "prepare", "params.yaml")


@pytest.mark.faults
def test_files_without_permission_are_named_and_with_it_each_stage_goes_on(tmp_path: Path) -> None:
    job = jobs.make(tmp_path / "job", PARAMS)
    job.client.search_experiments()  # makes mlflow.db
    for stage in STAGES:
        for path in FORBIDDEN.get(stage, []):
            refused(job, stage, path)
        job.run(*command(stage))


@needs_root
@pytest.mark.faults
def test_all_goes_well_without_shared_memory(tmp_path: Path, expected: Job) -> None:
    expected.run("dvc", "repro")
    job = jobs.make(tmp_path / "job", PARAMS)
    unusable = "mount -t tmpfs -o ro tmpfs /dev/shm"
    job.run("unshare", "--mount", "sh", "-c", f"{unusable} && ! touch /dev/shm/file && exec dvc repro")
    assert job.outs() == expected.outs()
