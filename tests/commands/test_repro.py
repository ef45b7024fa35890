"""`make repro`: interrupted, failing and continued, it ends as the quickstart, in which nothing happened."""

import json
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dvc.repo import Repo
from mlflow.entities import Run

from pipeline.commands import quickstart
from tests import projects
from tests.called import call
from tests.conftest import Clone, copy_checkout
from tests.processes import output_of, processes, wait_for
from tests.projects import Project, keep_stages

TRAININGS = ["fetch", "prepare", "recipes", "train", "predict", "finetune", "predict_finetuned"]
REPRO = ("python", "-m", "pipeline", "repro", "--jobs=2")
KILLS = 3
QUICKSTART: dict[str, Any] = yaml.safe_load(quickstart.PARAMS.read_text())


def set_variants(job: Project, **changes: dict[str, Any]) -> None:
    """Make its params.yaml the quickstart's with changed or further variants."""
    variants = dict.fromkeys(changes, QUICKSTART["variants"]["shallow"]) | QUICKSTART["variants"]
    variants |= {name: variants[name] | changed for name, changed in changes.items()}
    params = QUICKSTART | {"variants": variants}
    (job.folder / "params.yaml").write_text(json.dumps(params))


@pytest.fixture(scope="module")
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


def test_an_archive_without_git_is_refused_until_dvc_knows(tmp_path: Path) -> None:
    copy_checkout(tmp_path / "project")
    project = Project(tmp_path / "project")
    shutil.rmtree(project.folder / ".git")
    refusal = call(project.folder, "plan").refusal
    assert refusal.startswith(
        f"dvc: {project.folder} is not a git repository: run `git init`, or `dvc config"
    )
    project.run(*refusal.split("`")[-2].split())
    with Repo(project.folder):  # opens, as the plan does
        pass


def test_what_dvc_can_restore_is_not_trained_ahead(finished: Project) -> None:
    (finished.folder / "models/shallow-0/model.keras").unlink()
    printed = call(finished.folder, "plan").out
    assert "plan: train@shallow-0  from the cache\n" in printed
    assert printed.endswith(", with 0 trainings\n")


def content(run: Run, job: Project) -> Any:
    """What a run holds, without what differs from one training to the next: times, places."""
    own = ("mlflow.", "workspace", "git_commit", "system/", "wall_", "cpu_")
    tags, metrics = (
        {key: value for key, value in values.items() if not key.startswith(own)}
        for values in (run.data.tags, run.data.metrics)
    )
    files = sorted(artifact.path for artifact in job.client.list_artifacts(run.info.run_id))
    return tags, run.data.params, metrics, files, len(run.outputs.model_outputs) if run.outputs else 0


def assert_same(job: Project, expected: Project, without: Collection[str | None] = ()) -> None:
    """The same outs, and one finished run of each training with the same content, but for outs and runs
    that the job is `without`."""
    assert job.outs() == {path: md5 for path, md5 in expected.outs().items() if path not in without}
    finished = [run for run in job.runs() if run.info.status == "FINISHED"]
    runs = {
        run.info.run_name: content(run, expected)
        for run in expected.runs()
        if run.info.run_name not in without
    }
    assert sorted(str(run.info.run_name) for run in finished) == sorted(map(str, runs))
    assert {run.info.run_name: content(run, job) for run in finished} == runs


# Three runs of `make repro`, one after the other: interrupted, failing and complete, without the last stages.


@dataclass(frozen=True)
class Ended:
    """How `make repro` ended, and what was there then."""

    job: Project
    status: int
    printed: str
    runs: dict[str | None, str]  # the status of each run
    predicted: list[str]
    left_running: list[psutil.Process]

    @classmethod
    def of(cls, job: Project, status: int, printed: str) -> "Ended":
        runs = {run.info.run_name: run.info.status for run in job.runs()}
        predicted = [path.name for path in (job.folder / "predictions").glob("*")]
        return cls(job, status, printed, runs, predicted, processes(job.folder))


@pytest.fixture(scope="module")
def interrupted(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Ctrl-C in an early epoch of shallow, when speedrun was trained."""
    job = projects.before_training(clone, tmp_path_factory.mktemp("repro") / "job", QUICKSTART)
    keep_stages(job.folder, *TRAININGS, "evaluate", "select", "promote")
    set_variants(job, shallow={"epochs": 5000})
    lines = []
    with job.start(*REPRO) as driver:
        for line in driver.stdout or []:
            lines.append(line)
            if "shallow  epoch 2/5000" in line:
                wait_for(lambda: "speedrun" in job.results())
                driver.send_signal(signal.SIGINT)
                break
        lines += driver.stdout or []
    return Ended.of(job, driver.returncode, "".join(lines))


@pytest.fixture(scope="module")
def failed(interrupted: Ended) -> Ended:
    """Then shallow's checkpoint could not be written."""
    job = interrupted.job
    set_variants(job)
    checkpoint = job.folder / ".pipeline/checkpoints/shallow-0.npz"
    checkpoint.unlink()
    checkpoint.mkdir()
    with job.start(*REPRO) as driver:
        printed = output_of(driver)
    checkpoint.rmdir()
    return Ended.of(job, driver.returncode, printed)


@pytest.fixture(scope="module")
def completed(failed: Ended) -> Ended:
    """Then nothing was in the way any more."""
    return Ended.of(failed.job, 0, failed.job.run(*REPRO))


def test_ctrl_c_ends_all_processes_and_says_how_to_continue(interrupted: Ended) -> None:
    assert interrupted.status == 130
    assert interrupted.printed.endswith("\ninterrupted. Run the same command to continue.\n")
    assert "Traceback" not in interrupted.printed
    assert interrupted.left_running == []
    assert interrupted.runs == {"speedrun-0": "FINISHED", "shallow-0": "FAILED"}


def test_a_failing_training_is_tried_once_and_its_reason_printed(failed: Ended) -> None:
    reason = ".pipeline/checkpoints/shallow-0.partial: Is a directory"
    assert re.search(r"shallow-0: failed after \d:\d\d:\d\d\n", failed.printed)
    assert failed.printed.count(f"shallow-0: error: {reason}\n") == 1
    assert failed.printed.count(f"\nerror: {reason}\n") == 1  # of the stage, which did not try again


def test_stages_that_a_failure_holds_up_are_listed_and_the_others_run(failed: Ended) -> None:
    [left] = re.findall(r"error: not done: (.*)\. Run the same command to continue\.\n", failed.printed)
    after = {"evaluate", "select", "promote"}
    finetuning = {"finetune@shallow_subset-0", "predict_finetuned@shallow_subset-0"}
    assert set(left.split(", ")) == {"train@shallow-0", "predict@shallow-0"} | finetuning | after
    assert failed.predicted == ["speedrun-0"]


def test_a_finished_training_is_not_repeated(failed: Ended, completed: Ended) -> None:
    assert "speedrun  epoch" not in failed.printed + completed.printed


def test_in_the_end_all_is_as_if_nothing_had_happened(completed: Ended, expected: Project) -> None:
    assert_same(completed.job, expected, without=("diagnosis", "reports", "report"))
    assert not any("unused" in run.data.tags for run in completed.job.runs())
    assert not (completed.job.folder / ".pipeline/results").exists()


@pytest.mark.faults
def test_a_killed_driver_leaves_results_that_dvc_repro_takes_up(job: Project, expected: Project) -> None:
    set_variants(job, shallow={"epochs": 5000})
    with job.start(*REPRO) as driver:
        wait_for(lambda: "speedrun" in job.results())
        driver.kill()
    wait_for(lambda: processes(job.folder) == [])  # the workers end by themselves
    set_variants(job)
    printed = job.run("dvc", "repro")
    assert "speedrun  epoch" not in printed
    assert "shallow  epoch 1/10" in printed
    assert_same(job, expected)


@pytest.mark.faults
def test_kills_at_random_moments_end_all_stages_and_the_next_run_ends_right(
    job: Project, expected: Project
) -> None:
    moments, printed = random.Random(0), ""
    for _ in range(KILLS):
        with job.start(*REPRO) as driver:
            with suppress(subprocess.TimeoutExpired):
                driver.wait(moments.uniform(1, 25))
            driver.kill()
            printed += driver.communicate(timeout=60)[0]  # until all that could print have ended
    assert re.findall("busy|Traceback|error:.*", printed + job.run(*REPRO)) == []
    assert job.outs() == expected.outs()
    finished = [run.info.run_name for run in job.runs() if run.info.status == "FINISHED"]
    assert sorted(map(str, finished)) == sorted(str(run.info.run_name) for run in expected.runs())


@pytest.mark.faults
def test_the_run_of_a_result_that_no_stage_takes_up_gets_a_tag(finished: Project) -> None:
    set_variants(finished, speedrun={"epochs": 1}, shallow={"epochs": 5000})
    with finished.start(*REPRO) as driver:
        wait_for(lambda: "speedrun" in finished.results())
        driver.send_signal(signal.SIGTERM)
    set_variants(finished, shallow={"epochs": 1})
    finished.run(*REPRO)
    tagged = [run for run in finished.runs() if "unused" in run.data.tags]
    assert [run.data.params["epochs"] for run in tagged] == ["1"]
    assert [run.info.run_name for run in tagged] == ["speedrun-0 (unused)"]


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
