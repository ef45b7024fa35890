"""Stages that `make repro` runs in forks: as in their own process, and ending with it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.running import stage_server, worker
from pipeline.running.warm_stage import ADDRESS
from pipeline.support.locks import locked
from tests.conftest import ROOT
from tests.processes import wait_for


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder without results, whose stages are served."""
    folder, before = tmp_path_factory.mktemp("job"), Path.cwd()
    (folder / "pipeline").symlink_to(ROOT / "pipeline")
    os.chdir(folder)
    worker.end_server()  # of other tests, which has imported less
    with stage_server.serving({"recipes"}):
        yield folder
    os.chdir(before)


@contextmanager
def started(folder: Path, warm: bool = True) -> Iterator["subprocess.Popen[str]"]:
    """A stage's process, which hears Ctrl-C even if the tests run in the background."""
    environment = {name: value for name, value in os.environ.items() if warm or name != ADDRESS}
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pipeline", "select"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def fork_of(stage: "subprocess.Popen[str]") -> psutil.Process:
    """The fork that runs a stage."""
    wait_for(multiprocessing.active_children, stage)
    (process,) = multiprocessing.active_children()
    return psutil.Process(process.pid)


def test_a_fork_prints_and_ends_as_the_stages_own_process_does(job: Path) -> None:
    ended = {}
    for warm in (True, False):
        with started(job, warm) as stage:
            ended[warm] = (*stage.communicate(), stage.returncode)
    assert ended[True] == ended[False]
    assert ended[True][1].startswith("error: recipes/_index.json: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_fork_ends_with_the_process_that_asked_for_it(job: Path, number: signal.Signals) -> None:
    with locked("select"), started(job) as stage:  # the stage waits for the lock
        fork = fork_of(stage)
        wait_for(lambda: os.getpgid(fork.pid) == fork.pid, stage)
        stage.send_signal(number)
        begun = time.monotonic()
        stage.wait(60)
        fork.wait(10)
        assert time.monotonic() - begun < 10
        errors = stage.communicate()[1]
    assert stage.returncode == (130 if number == signal.SIGINT else -number)
    assert errors == ("\nerror: interrupted\n" if number == signal.SIGINT else "")  # click goes to a new line


def test_a_fork_that_dies_is_a_stage_that_failed(job: Path) -> None:
    with locked("select"), started(job) as stage:
        fork_of(stage).kill()
        assert stage.wait(60) == 128 + signal.SIGKILL


def test_code_that_has_changed_is_run_by_the_stages_own_process(job: Path) -> None:
    (job / "pipeline").unlink()
    (job / "pipeline").mkdir()
    (job / "pipeline/__init__.py").touch()
    (job / "pipeline/__main__.py").write_text(
        (ROOT / "pipeline/running/warm_stage.py").read_text() + "\nprint(ask(['select']))\n"
    )
    with started(job) as stage:
        assert stage.communicate() == ("None\n", "")
