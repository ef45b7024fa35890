"""Worker processes: what they print, how they end, and that a fork trains as a fresh process does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.running import worker
from tests.conftest import ROOT
from tests.keras_models import print_trained, recipe_of
from tests.processes import wait_for

# With augmentation, normalization, schedules and an optimizer of ours.
TRAINED = ["translate", "batchnorm", "model_s_plus", "speedrun"]
TRAIN = "import json, sys; from tests.keras_models import *; print_trained(Recipe(**json.load(sys.stdin)))"


def job(code: str) -> Any:
    """A job that executes some code, without importing this module."""
    return partial(exec, code, {})


@pytest.mark.parametrize(
    ("code", "status", "last"),
    [
        ("print('one\\ntwo')", 0, ["one", "two"]),
        ("import os, sys; os.write(1, b'of C\\n'); print('three', file=sys.stderr)", 0, ["of C", "three"]),
        (
            "from pipeline.support.errors import PipelineError; raise PipelineError('no images')",
            1,
            ["error: no images"],
        ),
        ("1 / 0", 1, ["ZeroDivisionError: division by zero"]),
        ("import os; os.kill(os.getpid(), 9)", -9, []),
        ("import os, time; os.kill(os.getpid(), 15); time.sleep(9)", worker.TERMINATED, []),
    ],
    ids=["prints", "writes", "refuses", "bug", "dies", "is terminated"],
)
def test_a_job_shows_its_lines_and_gives_its_status(code: str, status: int, last: list[str]) -> None:
    lines: list[str] = []
    assert worker.run(job(code), lines.append) == status
    assert lines[len(lines) - len(last) :] == last


def test_an_exception_of_what_shows_the_lines_kills_the_job() -> None:
    def show(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError) as raised:
        worker.run(job("import os, time; print(os.getpid()); time.sleep(60)"), show)
    assert not psutil.pid_exists(int(str(raised.value)))


def test_a_stop_ends_a_job_that_is_just_starting_and_starts_no_other() -> None:
    worker.end_server()
    stopped = threading.Event()
    with worker.server(), ThreadPoolExecutor(2) as threads:  # the first start waits for its imports
        sleep = job("import time; time.sleep(60)")
        jobs = [threads.submit(worker.run, sleep, print, None, stopped) for _ in range(2)]
        while not worker.LOCK.locked():
            time.sleep(0.01)
        stopped.set()
        worker.stop()
        assert {done.result(timeout=10) for done in jobs} <= {worker.TERMINATED, -signal.SIGTERM}


@pytest.mark.parametrize("late", [0, 3])
def test_a_command_ends_with_the_make_that_started_it_even_before_it_watched(
    tmp_path: Path, late: int
) -> None:
    code = f"import time; from pipeline.running import worker; open('here', 'w'); time.sleep({late})"
    code += "; worker.end_with_make(); time.sleep(60)"
    recipe = f'@exec env MAKE_PID=$$PPID {sys.executable} -c "{code}"'  # as in the Makefile
    assert "@exec env MAKE_PID=$$PPID python -m pipeline repro" in (ROOT / "Makefile").read_text()
    (tmp_path / "Makefile").write_text(f"sleep:\n\t{recipe}\n")
    with subprocess.Popen(["make"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}) as make:
        wait_for((tmp_path / "here").exists, make)
        (command,) = psutil.Process(make.pid).children()
        make.kill()
        command.wait(10)


@pytest.mark.faults
def test_forks_train_as_fresh_processes_do() -> None:
    """Bit for bit."""
    worker.end_server()  # of other tests, which has imported less
    with worker.server():
        for name in TRAINED:
            recipe, lines = recipe_of(name), list[str]()
            command = [sys.executable, "-c", TRAIN]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as fresh:
                assert worker.run(partial(print_trained, recipe), lines.append) == 0, lines
                printed, _ = fresh.communicate(json.dumps(recipe.content()))
            assert printed.split()[-1] == lines[-1]
