"""The order of jobs, and the GPU that each of them gets."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.running import job_queue, worker
from pipeline.running.job import Job
from pipeline.running.job_queue import longest_first
from pipeline.running.local_executor import Pool
from pipeline.running.view import View
from pipeline.support.model_files import ModelFiles
from tests.keras_models import recipe
from tests.running.gpu_job import OnGpu


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        ({"short": 10, "long": 30, "base": 20, "tuned": 15}, "base long tuned short"),
        ({"short": 10, "long": 30, "base": None, "tuned": 0}, "long base short tuned"),
        ({"short": None, "long": None, "base": None, "tuned": None}, "base short long tuned"),
    ],
)
def test_the_longest_job_starts_first(seconds: dict[str, float | None], order: str) -> None:
    """A fine-tuning counts for its base, an unknown training as the mean of the known ones."""
    jobs = [
        Job(ModelFiles(name, 0), made, {}, seconds=seconds[name])
        for name in ("short", "long", "base", "tuned")
        for made in [recipe(variant=name, init_from="base" if name == "tuned" else None)]
    ]
    assert [one.files.variant for one in longest_first(jobs)] == order.split()


def test_each_training_has_a_gpu_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"nvidia/{number}").mkdir(parents=True)
    monkeypatch.setattr(worker, "NVIDIA", tmp_path / "nvidia")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    monkeypatch.chdir(tmp_path)
    jobs = [OnGpu(ModelFiles("one", n), recipe(device="gpu"), {"folder": str(tmp_path)}) for n in range(5)]
    with View(Console(file=io.StringIO()), len(jobs)) as shown:
        job_queue.run(jobs, Pool(4, jobs), shown)
    done = [path.name.split(" on ") for path in tmp_path.glob("* on *")]
    assert sorted(name for name, _ in done) == [f"one-{n}" for n in range(5)]
    assert {gpu for _, gpu in done} == {"0", "2"}


def test_recipes_for_a_gpu_are_left_to_one_worker_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses them in one line."""
    monkeypatch.setattr(worker, "NVIDIA", tmp_path)
    assert Pool(4, [Job(ModelFiles("one", 0), recipe(device="gpu"), {})]).slots == 1
