"""`make repro`: work done ahead in workers and taken up by `dvc repro`, to the same end as without."""

import io
import json
import os
import re
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml
from mlflow.entities import Run
from rich.console import Console

from pipeline.commands import quickstart
from pipeline.core.arrays import write_json
from pipeline.running import job_queue, view, worker
from pipeline.running.job import Job as Work
from pipeline.running.job import WorkerDied
from pipeline.running.job_queue import longest_first
from pipeline.running.local_executor import Pool
from pipeline.running.view import View
from pipeline.support import job_results
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from tests import projects
from tests.conftest import Clone
from tests.keras_models import recipe
from tests.projects import Project, wait_for

REPRO = ("python", "-m", "pipeline", "repro", "--jobs=2")


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        ({"short": 10, "long": 30, "base": 20, "tuned": 15}, "base long tuned short"),
        ({"short": 10, "long": 30, "base": None, "tuned": 0}, "long base short tuned"),
        ({"short": None, "long": None, "base": None, "tuned": None}, "base short long tuned"),
    ],
)
def test_the_longest_work_starts_first(seconds: dict[str, float | None], order: str) -> None:
    """A fine-tuning counts for its base, an unknown training as the mean of the known ones."""
    work = [
        Work(ModelFiles(name, 0), made, {}, seconds=seconds[name])
        for name in ("short", "long", "base", "tuned")
        for made in [recipe(variant=name, init_from="base" if name == "tuned" else None)]
    ]
    assert [one.files.variant for one in longest_first(work)] == order.split()


class OnGpu(Work):
    """Holds its GPU for a moment, and fails if another job holds it."""

    def __call__(self) -> None:
        gpu = Path(self.code["folder"], os.environ["CUDA_VISIBLE_DEVICES"])
        gpu.touch(exist_ok=False)
        time.sleep(0.2)
        gpu.rename(gpu.with_name(f"{self.files.name} on {gpu.name}"))

    def result(self) -> ModelFiles:
        return self.files


def test_each_training_has_a_gpu_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"nvidia/{number}").mkdir(parents=True)
    monkeypatch.setattr(worker, "NVIDIA", tmp_path / "nvidia")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    monkeypatch.chdir(tmp_path)
    work = [OnGpu(ModelFiles("one", n), recipe(device="gpu"), {"folder": str(tmp_path)}) for n in range(5)]
    with View(Console(file=io.StringIO()), len(work)) as shown:
        job_queue.run(work, Pool(4, work), shown)
    done = [path.name.split(" on ") for path in tmp_path.glob("* on *")]
    assert sorted(name for name, _ in done) == [f"one-{n}" for n in range(5)]
    assert {gpu for _, gpu in done} == {"0", "2"}


def test_recipes_for_a_gpu_are_left_to_one_worker_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses them in one line."""
    monkeypatch.setattr(worker, "NVIDIA", tmp_path)
    assert Pool(4, [Work(ModelFiles("one", 0), recipe(device="gpu"), {})]).slots == 1


def test_a_result_that_fails_leaves_its_reason_and_nothing_else(workplace: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "model.keras").touch()
        raise PipelineError("the disk is full")

    with pytest.raises(PipelineError, match="full"):
        job_results.make("key", write)
    assert [path.name for path in (workplace / ".pipeline/results").iterdir()] == ["key.failed"]


def test_a_terminal_of_80_columns_shows_a_bar_for_each_training(capsys: pytest.CaptureFixture[str]) -> None:
    view.report((14, 40, 0.75))
    epoch = capsys.readouterr().out.rstrip("\n")
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=80)
    with View(console, total=3) as shown, ExitStack() as bars:
        with suppress(WorkerDied), shown.bar("vgg3-0") as died:
            died(epoch)
            raise WorkerDied
        shown.advance(shown.total)
        subset, shallow = (bars.enter_context(shown.bar(n)) for n in ("batchnorm_subset-0", "shallow-0"))
        subset(epoch)
        shallow("shallow  epoch 1/3  is not shown")
        shallow("its run is not complete")
        drawn = Console(file=io.StringIO(), record=True, width=80)
        drawn.print(shown.get_renderable())
    lines = [line.split() for line in drawn.export_text().splitlines()]
    assert [(name, *rest[:2]) for name, _, *rest in lines] == [
        ("all", "1/3", "--:--"),
        ("batchnorm_subset-0", "14/40", "0.7500"),
        ("shallow-0", "0/?"),
    ]
    printed = console.export_text()
    assert "is not shown" not in printed
    assert "shallow-0: its run is not complete" in printed


# Trainings: interrupted, failing and in the end complete, beside the quickstart, in which nothing happened.

QUICKSTART: dict[str, Any] = yaml.safe_load(quickstart.PARAMS.read_text())


def set_variants(job: Project, **changes: dict[str, Any]) -> None:
    """Make its params.yaml the quickstart's with changed or further variants."""
    variants = dict.fromkeys(changes, QUICKSTART["variants"]["shallow"]) | QUICKSTART["variants"]
    variants |= {name: variants[name] | changed for name, changed in changes.items()}
    params = QUICKSTART | {"variants": variants}
    (job.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def expected(clone: Clone) -> Project:
    """The finished quickstart."""
    return Project(clone.folder / "quickstart", {"MLFLOW_TRACKING_URI": clone.store})


@pytest.fixture
def job(clone: Clone, tmp_path: Path) -> Project:
    """The quickstart before its trainings."""
    return projects.before_training(clone, tmp_path / "job", QUICKSTART)


@pytest.fixture
def finished(expected: Project, tmp_path: Path) -> Project:
    """A copy of the finished quickstart with a store of its own."""
    return projects.copied(expected, tmp_path / "finished")


def test_with_several_seeds_means_are_ranked_and_the_best_seed_is_champion(
    clone: Clone, tmp_path: Path
) -> None:
    params = projects.small_params(shallow={"epochs": 2}, baseline={"epochs": 1}) | {"seeds": [0, 1]}
    job = projects.before_training(clone, tmp_path / "job", params)
    job.run(*REPRO)
    rows = [
        {"variant": variant, "seed": seed, "accuracy": json.loads(path.read_text())["validation"]["accuracy"]}
        for path in (job.folder / "metrics").glob("*.json")
        for variant, _, seed in [path.stem.rpartition("-")]
    ]
    means = pd.DataFrame(rows).groupby("variant")["accuracy"].mean()
    seeds = [row for row in rows if row["variant"] == means.idxmax()]
    champion = job.client.get_model_version_by_alias("digits", "champion")
    tags = champion.tags
    assert str(champion.description).startswith("# digits: ")
    described, _, cost = str(champion.description).partition("\n\n## Cost\n\n")
    assert described in (job.folder / "reports/model-card.md").read_text()
    assert re.match(r"The training took [\d.]+ CPU minutes, an estimated [\d.]+ Wh", cost)
    assert (tags["variant"], tags["seeds"]) == (means.idxmax(), "2")
    assert tags["seed"] == max(seeds, key=lambda row: (row["accuracy"], -int(row["seed"])))["seed"]
    assert float(tags["mean_validation_accuracy"]) == pytest.approx(means.max(), abs=1e-6)
    report = (job.folder / "reports/report.md").read_text()
    assert "means and standard deviations over 2 seeds" in report
    assert "a paired bootstrap over the images and the seeds" in report
    logged = next(run for run in job.runs() if run.data.tags.get("stage") == "report")
    files = [file.path for file in job.client.list_artifacts(logged.info.run_id, "report")]
    assert {"report/report.html", "report/frontier.png"} <= set(files)


def content(run: Run, job: Project) -> Any:
    """What a run holds, without what differs from one training to the next: times, places."""
    own = ("mlflow.", "workspace", "git_commit", "system/", "wall_", "cpu_")
    tags, metrics = (
        {key: value for key, value in values.items() if not key.startswith(own)}
        for values in (run.data.tags, run.data.metrics)
    )
    files = sorted(artifact.path for artifact in job.client.list_artifacts(run.info.run_id))
    return tags, run.data.params, metrics, files, len(run.outputs.model_outputs) if run.outputs else 0


def assert_same(job: Project, expected: Project) -> None:
    """The same outs, and one finished run of each training with the same content."""
    assert job.outs() == expected.outs()
    finished = [run for run in job.runs() if run.info.status == "FINISHED"]
    runs = {run.info.run_name: content(run, expected) for run in expected.runs()}
    assert sorted(str(run.info.run_name) for run in finished) == sorted(map(str, runs))
    assert {run.info.run_name: content(run, job) for run in finished} == runs


def test_after_ctrl_c_and_a_failing_variant_all_is_as_if_nothing_had_happened(
    job: Project, expected: Project
) -> None:
    set_variants(job, shallow={"epochs": 5000})
    lines = []
    with job.start(*REPRO) as driver:
        for line in driver.stdout or []:
            lines.append(line)
            if "shallow  epoch 2/5000" in line:
                wait_for(lambda: "speedrun" in projects.results_of(job))
                driver.send_signal(signal.SIGINT)
                break
        lines += driver.stdout or []
    assert driver.returncode == 130
    assert lines[-1] == "interrupted. Run the same command to continue.\n"
    assert "Traceback" not in "".join(lines)
    assert projects.processes(job.folder) == []
    statuses = {run.info.run_name: run.info.status for run in job.runs()}
    assert statuses == {"speedrun-0": "FINISHED", "shallow-0": "FAILED"}

    set_variants(job)
    checkpoint = job.folder / ".pipeline/checkpoints/shallow-0.npz"
    checkpoint.unlink()
    checkpoint.mkdir()  # it cannot be written
    printed = job.run(*REPRO, check=False)
    reason = ".pipeline/checkpoints/shallow-0.partial: Is a directory"
    assert re.search(r"shallow-0: failed after \d:\d\d:\d\d\n", printed)
    assert printed.count(f"shallow-0: error: {reason}\n") == 1
    assert printed.count(f"\nerror: {reason}\n") == 1  # of the stage, which did not try again
    assert printed.count("speedrun  epoch") == 0  # its result was there
    [left] = re.findall(r"error: not done: (.*)\. Run the same command to continue\.\n", printed)
    others = {
        "evaluate",
        "select",
        "promote",
        "diagnose",
        "report",
        "finetune@shallow_subset-0",
        "predict_finetuned@shallow_subset-0",
    }
    assert set(left.split(", ")) == {"train@shallow-0", "predict@shallow-0", *others}
    assert [path.name for path in (job.folder / "predictions").iterdir()] == ["speedrun-0"]

    checkpoint.rmdir()
    assert "speedrun  epoch" not in job.run(*REPRO)
    assert_same(job, expected)
    assert not any("unused" in run.data.tags for run in job.runs())
    assert not (job.folder / ".pipeline/results").exists()


@pytest.mark.usefixtures("workplace")
def test_a_result_is_taken_up_again_after_a_kill_before_the_lock() -> None:
    Path("models").mkdir()
    job_results.make("key", lambda folder: write_json(folder / "training.json", {}))
    for _ in range(2):  # DVC was killed after the first, so it runs the stage again
        assert job_results.take("key", Path("models/one-0"))
        assert [path.name for path in Path("models/one-0").iterdir()] == ["training.json"]
        Path("models/one-0/of a killed stage").touch()


def test_what_dvc_can_restore_is_not_trained_ahead(finished: Project) -> None:
    (finished.folder / "models/shallow-0/model.keras").unlink()
    printed = projects.call(finished.folder, "plan").out
    assert "plan: train@shallow-0  from the cache\n" in printed
    assert printed.endswith(" stages, 0 of them trainings\n")


@pytest.mark.faults
def test_a_killed_driver_leaves_results_that_dvc_repro_takes_up(job: Project, expected: Project) -> None:
    set_variants(job, shallow={"epochs": 5000})
    with job.start(*REPRO) as driver:
        wait_for(lambda: "speedrun" in projects.results_of(job))
        driver.kill()
    wait_for(lambda: projects.processes(job.folder) == [])  # the workers end by themselves
    set_variants(job)
    printed = job.run("dvc", "repro")
    assert "speedrun  epoch" not in printed
    assert "shallow  epoch 1/10" in printed
    assert_same(job, expected)


@pytest.mark.faults
def test_the_run_of_a_result_that_no_stage_takes_up_gets_a_tag(finished: Project) -> None:
    set_variants(finished, speedrun={"epochs": 1}, shallow={"epochs": 5000})
    with finished.start(*REPRO) as driver:
        wait_for(lambda: "speedrun" in projects.results_of(finished))
        driver.send_signal(signal.SIGTERM)
    set_variants(finished, shallow={"epochs": 1})
    finished.run(*REPRO)
    tagged = [run for run in finished.runs() if "unused" in run.data.tags]
    assert [run.data.params["epochs"] for run in tagged] == ["1"]
    assert [run.info.run_name for run in tagged] == ["speedrun-0"]


@pytest.mark.faults
def test_a_killed_worker_resumes_twice_and_then_fails_alone(job: Project) -> None:
    set_variants(job, shallow={"epochs": 5000})
    kills = resumed = 0
    with job.start(*REPRO) as driver:
        lines = []
        for line in driver.stdout or []:
            lines.append(line)
            resumed += "resuming after" in line
            has_checkpoint = "shallow  epoch " in line and "epoch 1/" not in line
            if has_checkpoint and kills == resumed:  # not a line of the process that was just killed
                kills += 1
                for process in psutil.Process(driver.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):  # another one has just ended
                        if is_training(job, process):
                            process.kill()
    assert resumed == 2
    printed = "".join(lines)
    assert "error: its process ended with -9, 3 times\n" in printed
    assert printed.count("speedrun-0: done") == 1
    assert (job.folder / "predictions/speedrun-0").is_dir()


def is_training(job: Project, process: psutil.Process) -> bool:
    """Whether a process holds the lock of shallow's training."""
    locks = [file.path for file in process.open_files()]
    return str(job.folder / ".pipeline/locks/train-shallow-0.lock") in locks
