"""A full or read-only disk, no permission, no /dev/shm: one line, nothing lost, the next run continues."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import projects
from tests.called import call
from tests.conftest import contents
from tests.processes import output_of
from tests.projects import NAME, Project

PARAMS = projects.small_params(batchnorm={"epochs": 4})
STAGES = ["fetch", "prepare", "recipes", "train", "predict"]
STAGES += ["evaluate", "select", "promote", "diagnose", "report"]
HERE = {"fetch", "prepare", "recipes"}  # these run in this process: they open no store and set no threads
# Of a full disk; with the second number a training begins.
BYTES_LEFT = {"recipes": [0], "select": [0], "predict": [0], "train": [20_000, 6_000_000]}
FORBIDDEN = {
    "prepare": ["params.yaml", "data/raw/train_images.npy", "data/prepared"],
    "train": ["data/prepared/train/manifest.json"],
    "predict": [f"models/{NAME}/model.keras"],
    "evaluate": [f"predictions/{NAME}/test.npy", "mlflow.db"],
    "report": ["selection.json"],
}


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(job: Project, stage: str, *before: str) -> str:
    """Run a stage, with `before` in front of its command; its error, in one line, or "" if it has none."""
    arguments = NAME.split("-") if stage in {"train", "predict"} else []
    if stage in HERE and not before:
        return call(job.folder, stage, *arguments).error or ""
    command = ["python", "-m", "pipeline", stage, *arguments]
    process = job.start(*before, *command, PYTHONDONTWRITEBYTECODE="1")
    printed = output_of(process)
    assert "Traceback" not in printed, printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert (process.returncode, len(errors)) in {(0, 0), (1, 1)}, printed
    return "".join(errors)


def check_full(job: Project, stage: str) -> None:
    """See that a stage reports a full disk and keeps what is there."""
    for left in BYTES_LEFT.get(stage, [100_000]):
        before = {name: contents(job.folder / name) for name in ("data", "models")}
        shutil.rmtree(job.folder / ".pipeline/checkpoints", ignore_errors=True)  # predict removes them
        filler = job.folder.parent / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(filler).free - left)
        error = run(job, stage)
        assert "No space left" in error or "full" in error, (stage, left, error)
        for name, content in before.items():
            assert content.items() <= contents(job.folder / name).items(), (stage, left)
        filler.unlink()


def check_read_only(job: Project, stage: str) -> None:
    """See that a stage reports a read-only disk."""
    before = contents(job.folder)
    mount("-o", "remount,ro", str(job.folder.parent))
    error = run(job, stage)
    mount("-o", "remount,rw", str(job.folder.parent))
    assert "ead-only" in error or "readonly" in error, (stage, error)
    assert contents(job.folder) == before, stage


def check_forbidden(job: Project, stage: str, path: str) -> None:
    """See that a stage names a file that it may not read, or a folder that it may not write to."""
    file = job.folder / path
    mode = stat.S_IMODE(file.stat().st_mode)
    file.chmod(0o500 if file.is_dir() else 0)
    # Root may read all: without these capabilities it is a user like any other.
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    error = run(job, stage, *(drop if os.getuid() == 0 else ["env"]))
    file.chmod(mode)
    assert "ermission" in error or "unable to open" in error, (stage, path, error)
    assert file.name in error or "MLFLOW_TRACKING_URI" in error, (stage, path, error)


def test_params_without_permission_are_named(tmp_path: Path) -> None:
    check_forbidden(projects.make(tmp_path / "job", PARAMS), "prepare", "params.yaml")


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts disks")
@pytest.mark.faults
def test_each_stage_reports_what_the_disk_refuses_and_then_goes_on(disk: Path, tmp_path: Path) -> None:
    """The results are those of a job without faults, and without /dev/shm, which nothing needs."""
    job = projects.make(disk / "job", PARAMS)
    for stage in STAGES:
        check_full(job, stage)
        check_read_only(job, stage)
        for path in FORBIDDEN.get(stage, []):
            check_forbidden(job, stage, path)
        assert run(job, stage) == ""
    whole = projects.make(tmp_path / "whole", PARAMS)
    unusable = "mount -t tmpfs -o ro tmpfs /dev/shm"
    whole.run("unshare", "--mount", "sh", "-c", f"{unusable} && ! touch /dev/shm/file && exec dvc repro")
    for out in whole.outs():
        one, other = job.folder / out, whole.folder / out
        assert contents(one) == contents(other), out
        assert one.is_dir() or one.read_bytes() == other.read_bytes(), out
