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
STAGES = ("fetch", "prepare", "train", "evaluate", "promote", "report")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root mounts disks")


def command(stage: str) -> list[str]:
    arguments = NAME.split("-") if stage in {"train", "evaluate"} else []
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


def as_far_as(job: Job, stage: str) -> None:
    """Run the stages before one."""
    job.run("python", "-m", "pipeline.precision")
    for earlier in STAGES[: STAGES.index(stage)]:
        job.run(*command(earlier))


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


@needs_root
@pytest.mark.parametrize(
    ("stage", "left"),
    [
        pytest.param("fetch", 100_000, marks=pytest.mark.faults),
        pytest.param("prepare", 100_000, marks=pytest.mark.faults),
        pytest.param("train", 20_000, marks=pytest.mark.faults),
        pytest.param("train", 6_000_000, marks=pytest.mark.faults),
        pytest.param("evaluate", 100_000, marks=pytest.mark.faults),
        pytest.param("promote", 100_000, marks=pytest.mark.faults),
        pytest.param("report", 100_000, marks=pytest.mark.faults),
    ],
)
def test_a_full_disk_is_told_and_with_room_the_stage_goes_on(
    stage: str, left: int, disk: Path, expected: Job
) -> None:
    job = jobs.make(disk / "job", PARAMS)
    as_far_as(job, stage)
    before = files(job.folder / "data") | files(job.folder / "models")
    shutil.rmtree(job.folder / ".pipeline/checkpoints", ignore_errors=True)  # whose room evaluate makes free
    filler = fill(disk, left)
    process = job.start(*command(stage))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 1, told
    assert "No space left" in one_error(told) or "full" in one_error(told), told
    after = files(job.folder / "data") | files(job.folder / "models")
    assert before.items() <= after.items()
    filler.unlink()
    job.run(*command(stage))
    name = f"models/{NAME}/model.keras"
    if stage == "train":
        assert (job.folder / name).read_bytes() == (expected.folder / name).read_bytes()


@needs_root
@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_a_read_only_folder_is_told_and_nothing_changes(stage: str, disk: Path) -> None:
    job = jobs.make(disk / "job", PARAMS)
    as_far_as(job, stage)
    before = files(job.folder)
    mount("-o", "remount,ro", str(disk))
    told = job.run(*command(stage), check=False, PYTHONDONTWRITEBYTECODE="1")
    assert "ead-only" in one_error(told) or "readonly" in one_error(told), told
    assert files(job.folder) == before
    mount("-o", "remount,rw", str(disk))
    job.run(*command(stage))


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("prepare", "params.yaml"),
        pytest.param("prepare", "data/raw/train_images.npy", marks=pytest.mark.faults),
        pytest.param("prepare", "data", marks=pytest.mark.faults),
        pytest.param("train", "data/prepared/train/manifest.json", marks=pytest.mark.faults),
        pytest.param("train", "mlflow.db", marks=pytest.mark.faults),
        pytest.param("evaluate", f"models/{NAME}/model.keras", marks=pytest.mark.faults),
        pytest.param("report", "champion.json", marks=pytest.mark.faults),
    ],
)
def test_a_file_without_permission_is_named(stage: str, path: str, tmp_path: Path) -> None:
    job = jobs.make(tmp_path / "job", PARAMS)
    as_far_as(job, stage)
    if path == "mlflow.db":
        job.client.search_experiments()
    refused = job.folder / path
    mode = stat.S_IMODE(refused.stat().st_mode)
    refused.chmod(0o500 if refused.is_dir() else 0)
    # Root may read all: without these capabilities it is a user like any other.
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    told = job.run(*(drop if os.getuid() == 0 else []), *command(stage), check=False)
    error = one_error(told)
    assert "ermission" in error or "unable to open" in error, told
    assert refused.name in error or "MLFLOW_TRACKING_URI" in error, told
    refused.chmod(mode)
    job.run(*command(stage))


@needs_root
@pytest.mark.faults
def test_all_goes_well_without_shared_memory(tmp_path: Path, expected: Job) -> None:
    expected.run("dvc", "repro")
    job = jobs.make(tmp_path / "job", PARAMS)
    unusable = "mount -t tmpfs -o ro tmpfs /dev/shm"
    job.run("unshare", "--mount", "sh", "-c", f"{unusable} && ! touch /dev/shm/file && exec dvc repro")
    assert job.outs() == expected.outs()
