"""Stages side by side: their order, their failures, Ctrl-C, and the same end as `dvc repro`."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import networkx as nx
import psutil
import pytest
from dvc.repo import Repo
from mlflow import MlflowClient
from rich.console import Console
from ruamel.yaml import YAML

from pipeline import plan, repro
from pipeline.running import live
from pipeline.shared.errors import PipelineError
from tests.conftest import ROOT, Clone

pytestmark = pytest.mark.timeout(900)  # the first of the last tests waits for the quickstart


# The order.


def graph(**dependencies: str) -> "nx.DiGraph[str]":
    """Stages, each with the stages that it depends on."""
    found: nx.DiGraph[str] = nx.DiGraph()
    found.add_nodes_from(dependencies)
    found.add_edges_from((stage, other) for stage, all_of in dependencies.items() for other in all_of.split())
    return found


STAGES = graph(
    prepare="", short="prepare", long="prepare", base="prepare", tuned="base", end="short long tuned"
)


def test_stages_with_the_longest_path_after_them_come_first() -> None:
    order = repro.longest_first(STAGES, {"short": 10, "long": 30, "base": 20, "tuned": 15})
    assert order == ["prepare", "base", "long", "tuned", "short", "end"]


def test_a_training_that_nobody_knows_counts_as_the_mean_of_the_others() -> None:
    order = repro.longest_first(STAGES, {"short": 10, "long": 30, "base": None, "tuned": 0})
    assert order == ["prepare", "long", "base", "short", "tuned", "end"]


def test_trainings_that_nobody_knows_are_all_the_same_and_in_their_order() -> None:
    order = repro.longest_first(STAGES, {"short": None, "long": None, "base": None, "tuned": None})
    assert order == ["prepare", "base", "short", "long", "tuned", "end"]


@pytest.mark.parametrize(
    ("done", "started", "expected"),
    [
        ("", "", "prepare"),
        ("", "prepare", ""),
        ("prepare", "prepare", "short long base"),
        ("prepare", "prepare base", "short long"),
        ("prepare base short", "prepare base short long", "tuned"),
        ("prepare base short tuned", "prepare base short tuned long", ""),  # long runs, or has failed
        ("prepare base short tuned long", "prepare base short tuned long", "end"),
    ],
)
def test_a_stage_is_ready_when_all_that_it_depends_on_is_done(done: str, started: str, expected: str) -> None:
    assert repro.ready(STAGES, set(done.split()), started.split()) == set(expected.split())


@pytest.mark.parametrize("jobs", ["0", "-1", "1.5", "two", "", "08"])
def test_jobs_that_are_no_number_are_refused_in_one_line(jobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["repro", f"--jobs={jobs}"])
    told = f"error: --jobs: `cores` and whole numbers from 1 are allowed; received {jobs!r}"
    with pytest.raises(SystemExit, match=f"^{re.escape(told)}$"):
        repro.main()


def test_default_jobs_are_as_many_as_the_cores_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repro.default_jobs(1) >= 1
    assert repro.default_jobs(10**6) == 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert repro.default_jobs(1) == 1


# The live view.


def epoch_line(variant: str) -> str:
    metrics = "accuracy 0.99  loss 0.03  val_accuracy 0.95  val_loss 0.19"
    return f"{variant}  epoch 14/40  {metrics}  at most 1:57 left"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (200, "epoch 14/40  accuracy 0.99  loss 0.03  val_accuracy 0.95  val_loss 0.19  at most 1:57 left"),
        (50, "epoch 14/40  val_loss 0.19  at most 1:57 left"),
        (30, "epoch 14/40  at most 1:57 left"),
        (20, "epoch 14/40  at mos…"),
    ],
)
def test_an_epochs_line_keeps_the_epoch_and_the_time_left(width: int, expected: str) -> None:
    assert live.shortened(epoch_line("x").removeprefix("x  "), width) == expected


def test_what_is_drawn_fits_a_terminal_of_80_columns() -> None:
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=80)
    view = live.View(console, total=9)
    for stage in ("train@shallow-0", "finetune@batchnorm_subset-0", "evaluate@shallow-1", "fetch"):
        view.start(stage)
    view.line("train@shallow-0", epoch_line("shallow"), whole=True)
    view.line("finetune@batchnorm_subset-0", epoch_line("batchnorm_subset"), whole=True)
    view.line("fetch", "\x1b[31m 10%|###   |", whole=False)
    view.end("evaluate@shallow-1", "done", f"shallow-1: validation accuracy 0.5, {'and more ' * 9}")
    console.print(view.live.get_renderable())
    lines = console.export_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert re.fullmatch(r"done +0:00  evaluate@shallow-1  validation accuracy 0.5, and.*…", lines[0])
    shown = [re.split(r"  +", line, maxsplit=3) for line in lines[-4:-1]]
    assert shown == [
        ["runs", "0:00", "train@shallow-0", "epoch 14/40  val_loss 0.19  at most 1:57 left"],
        ["runs", "0:00", "finetune@batchnorm_subset-0", "epoch 14/40  at most 1:57 left"],
        ["runs", "0:00", "fetch", "10%|###   |"],
    ]
    assert lines[-1] == "1 done, 3 running, 5 waiting  0:00"


# Small stages in a real DVC project.


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DVC project as the working directory."""
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    return tmp_path


def write_stages(project: Path, **stages: tuple[str, str]) -> None:
    """A stage of each (command, names of the stages that it depends on); each makes NAME.out."""
    written = {
        name: {"cmd": f"{command} && echo {name} > {name}.out", "outs": [f"{name}.out"]}
        | ({"deps": [f"{other}.out" for other in others.split()]} if others else {})
        for name, (command, others) in stages.items()
    }
    YAML().dump({"stages": written}, project / "dvc.yaml")


def locked(folder: Path) -> dict[str, Any]:
    """The stages of dvc.lock."""
    return dict(YAML(typ="safe").load(folder / "dvc.lock")["stages"])


def up_to_date() -> bool:
    with Repo() as repo:
        return not repo.status()


def test_stages_run_side_by_side_and_every_one_is_in_the_lock(project: Path) -> None:
    names = ["one", "two", "three", "four"]
    met = f"touch $DVC_STAGE.here; until [ $(ls *.here | wc -l) = {len(names)} ]; do sleep .05; done"
    write_stages(project, **dict.fromkeys(names, (met, "")), end=("true", " ".join(names)))
    assert repro.reproduce(plan.stages_to_run(), {}, jobs=len(names)) == 0
    assert set(locked(project)) == {*names, "end"}
    assert up_to_date()


def test_one_job_runs_one_after_another(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = "mkdir busy && sleep .3 && echo was alone && rmdir busy"
    write_stages(project, one=(alone, ""), two=(alone, ""))
    assert repro.reproduce(plan.stages_to_run(), {}, jobs=1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" after")[0] for line in lines] == [
        "one: was alone",
        "one: done",
        "two: was alone",
        "two: done",
        "dvc repro: done",
    ]


def test_a_failed_stage_stops_what_depends_on_it_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "echo before && echo error: no such thing >&2 && exit 1"
    write_stages(
        project,
        bad=(failing, ""),
        after=("true", "bad"),
        last=("true", "after good"),
        good=("until [ -e bad.seen ]; do sleep .1; done", ""),
        killed=("touch bad.seen && kill -9 $$", ""),
    )
    assert repro.reproduce(plan.stages_to_run(), {}, jobs=2) == 1
    assert set(locked(project)) == {"good"}
    told = capsys.readouterr()
    assert "bad: before\nbad: error: no such thing\n" in told.out
    assert "bad: failed after" in told.out
    assert "error: bad: no such thing\n  skipped: after, last\n" in told.err
    assert re.search(r"error: killed: .*exited with -9\n", told.err)
    assert told.err.endswith("Run the same command to continue.\n")


def test_only_the_last_state_of_a_progress_bar_is_a_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stages(project, one=(r"printf '\r 10%%\r 90%%' && sleep .3 && printf '\r100%%\r\nthe end\n'", ""))
    assert repro.reproduce(plan.stages_to_run(), {}, jobs=1) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "after" not in line] == [
        "one: 100%",
        "one: the end",
    ]


def test_another_dvc_at_work_is_told_in_one_line(project: Path) -> None:
    write_stages(project, one=("touch started && until [ -e go ]; do sleep .1; done", ""))
    with subprocess.Popen([sys.executable, "-m", "dvc", "--quiet", "repro"], cwd=project) as other:
        wait_until((project / "started").exists)
        with pytest.raises(PipelineError, match=r"dvc: .* is busy, it is being blocked by: \(PID") as caught:
            plan.stages_to_run()
        (project / "go").touch()
        assert other.wait(60) == 0
    assert "\n" not in str(caught.value)
    assert not plan.stages_to_run()


def wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder, without this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


RUN = """\
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
from pipeline import plan, repro
from pipeline.running import stage
stage.SECONDS_TO_STOP = stage.SECONDS_TO_END = 2
sys.exit(repro.reproduce(plan.stages_to_run(), {}, jobs=2))
"""


@pytest.mark.parametrize(
    ("number", "deaf"), [(signal.SIGHUP, "echo"), (signal.SIGTERM, "trap '' INT TERM")], ids=["ends", "deaf"]
)
def test_a_stage_is_stopped_even_if_it_does_not_listen(
    project: Path, number: signal.Signals, deaf: str
) -> None:
    command = f"{deaf}; touch deaf.here; {sys.executable} -c 'import time; time.sleep(600)'"
    write_stages(project, first=("true", ""), deaf=(command, "first"), waiting=("true", "deaf"))
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        text=True,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout
        wait_until((project / "deaf.here").exists)
        process.send_signal(number)
        lines = process.stdout.read().splitlines()
    assert process.returncode == 130
    assert lines[-2:] == [
        "stopping deaf",
        "interrupted: stopped deaf. Run the same command to continue.",
    ]
    assert processes_in(project) == []
    assert set(locked(project)) == {"first"}


# Trainings: interrupted, failing and in the end complete, beside a serial run.

FINAL: dict[str, Any] = {"shallow": {"epochs": 1}, "baseline": {"epochs": 2}}
LONG = {"shallow": {"epochs": 5000}, "baseline": {"epochs": 2}}
BROKEN = FINAL | {"broken": {"network": "shallow", "epochs": 1}}


def change_variants(project: Clone, variants: dict[str, dict[str, Any]]) -> None:
    """Keep these variants alone, with these changes."""
    path = project.folder / "params.yaml"
    params = YAML(typ="safe").load(path)
    old = params["variants"]
    params["variants"] = {name: old.get(name, old["baseline"]) | new for name, new in variants.items()}
    params.pop("finetune", None)
    YAML().dump(params, path)


@pytest.fixture(scope="module")
def serial(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The variants after `dvc repro`."""
    copy = clone.copy_quickstart(tmp_path_factory.mktemp("serial"))
    change_variants(copy, FINAL)
    copy.run("dvc", "repro")
    return copy


@pytest.fixture(scope="module")
def parallel(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return clone.copy_quickstart(tmp_path_factory.mktemp("parallel"))


@pytest.fixture(scope="module")
def interrupted(parallel: Clone) -> tuple[int, list[str]]:
    """A run that got Ctrl-C when one training was done, one was at it: its exit status and lines."""
    change_variants(parallel, LONG)
    command = [sys.executable, "-m", "pipeline.repro", "--jobs=2"]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=parallel.folder,
        env=parallel.environment,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            told = "".join(lines)
            if "predict@baseline-0: done" in told and "epoch 2/5000" in told and "stopping" not in told:
                process.send_signal(signal.SIGINT)
    return process.returncode, [line.rstrip() for line in lines]


@pytest.fixture(scope="module")
def crashed(parallel: Clone, interrupted: tuple[int, list[str]]) -> subprocess.CompletedProcess[str]:  # noqa: ARG001
    """A run with a variant whose training fails, after the interrupted one."""
    change_variants(parallel, BROKEN)
    (parallel.folder / ".pipeline/checkpoints/broken-0.npz").mkdir(parents=True)  # it cannot be written
    return parallel.run(sys.executable, "-m", "pipeline.repro", "--jobs=2", check=False)


@pytest.fixture(scope="module")
def completed(parallel: Clone, crashed: subprocess.CompletedProcess[str]) -> Clone:  # noqa: ARG001
    """The variants after a last run, in which nothing fails."""
    change_variants(parallel, FINAL)
    parallel.run(sys.executable, "-m", "pipeline.repro", "--jobs=2")
    return parallel


def test_ctrl_c_stops_what_runs_and_keeps_what_is_done(
    parallel: Clone, interrupted: tuple[int, list[str]]
) -> None:
    status, lines = interrupted
    assert status == 130
    assert re.fullmatch(
        r"interrupted: stopped train@shallow-0\. Run the same command to continue\.", lines[-1]
    )
    assert processes_in(parallel.folder) == []
    assert "Traceback" not in "\n".join(lines)
    done = json.loads(parallel.run("dvc", "status", "--json").stdout)
    assert "train@baseline-0" not in done
    assert "train@shallow-0" in done
    client = MlflowClient(parallel.store)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "baseline-0": "FINISHED",
        "shallow-0": "FAILED",
    }


def test_a_failing_variant_is_named_with_its_reason_and_the_others_finish(
    parallel: Clone, crashed: subprocess.CompletedProcess[str]
) -> None:
    assert crashed.returncode == 1
    assert crashed.stderr.splitlines()[-3:] == [
        "error: train@broken-0: .pipeline/checkpoints/broken-0.partial: Is a directory",
        "  skipped: predict@broken-0, evaluate, promote, report",
        "Run the same command to continue.",
    ]
    assert "train@baseline-0:" not in crashed.stdout  # the interrupted run had finished it
    assert "predict@shallow-0: done" in crashed.stdout
    assert {"baseline-0", "shallow-0"} <= {path.name for path in (parallel.folder / "models").iterdir()}


def test_the_lock_is_that_of_a_serial_run(serial: Clone, completed: Clone) -> None:
    assert locked(completed.folder) == locked(serial.folder)


def test_the_models_are_those_of_a_serial_run_bit_for_bit(serial: Clone, completed: Clone) -> None:
    for name in ("shallow-0", "baseline-0"):
        for file in ("model.keras", "history.csv", "training.json"):
            path = Path("models", name, file)
            assert (completed.folder / path).read_bytes() == (serial.folder / path).read_bytes(), path


def finished_runs(project: Clone) -> dict[str, Any]:
    """What each finished run holds, without what differs from one serial run to the next: times, places."""
    client = MlflowClient(project.store)
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])  # type: ignore[union-attr]
    finished = [run for run in found if run.info.status == "FINISHED"]
    assert len({run.info.run_name for run in finished}) == len(finished)
    return {
        run.info.run_name: (
            {
                key: value
                for key, value in run.data.tags.items()
                if not key.startswith("mlflow.") and key != "workspace"
            },
            run.data.params,
            {
                key: value
                for key, value in run.data.metrics.items()
                if not key.startswith("system/") and not key.endswith("_seconds")
            },
            sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id)),
            len(run.outputs.model_outputs) if run.outputs else 0,
        )
        for run in finished
    }


def test_the_runs_are_those_of_a_serial_run(serial: Clone, completed: Clone) -> None:
    runs = finished_runs(completed)
    assert set(runs) == {"shallow-0", "baseline-0", "report"}
    assert runs == finished_runs(serial)
