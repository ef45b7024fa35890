"""Worker processes: what they print, how they end, and that none outlives its driver."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.params import Params
from pipeline.running import worker
from tests.conftest import ROOT
from tests.jobs import wait_for
from tests.keras_models import print_trained, recipe_of

FRESH = ["translate", "batchnorm", "model_s_plus", "vgg3"]  # augmentation, normalization, schedules, size
TRAIN = "import json, sys; from tests.keras_models import *; print_trained(Recipe(**json.load(sys.stdin)))"
WAIT = "import os, time; print(os.getpid()); time.sleep(600)"


def job(code: str) -> Any:
    """A job that executes some code, without importing this module."""
    return partial(exec, code, {})


@pytest.mark.parametrize(
    ("code", "status", "last"),
    [
        ("print('one\\ntwo')", 0, ["one", "two"]),
        ("import os, sys; os.write(1, b'of C\\n'); print('three', file=sys.stderr)", 0, ["of C", "three"]),
        (
            "from pipeline.shared.errors import PipelineError; raise PipelineError('no images')",
            1,
            ["error: no images"],
        ),
        ("1 / 0", 1, ["ZeroDivisionError: division by zero"]),
        ("import os; os.kill(os.getpid(), 9)", -9, []),
    ],
    ids=["prints", "writes", "refuses", "bug", "dies"],
)
def test_a_job_shows_its_lines_and_gives_its_status(code: str, status: int, last: list[str]) -> None:
    lines: list[str] = []
    assert worker.run(job(code), lines.append) == status
    assert lines[len(lines) - len(last) :] == last


def test_stopping_ends_a_job_and_no_process_of_others() -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    ends: list[int | None] = []
    lines: list[str] = []
    thread = threading.Thread(target=lambda: ends.append(worker.run(job(WAIT), lines.append)))
    thread.start()
    process = psutil.Process(int(wait_for(lambda: lines)[0]))
    worker.stop()
    thread.join(30)
    assert len(ends) == 1
    assert not process.is_running()
    assert other.is_alive()
    other.kill()
    assert worker.run(job("1 + 1"), lines.append) == 0  # in a new server


DRIVER = f"""
from functools import partial
from pipeline.running import worker
if __name__ == "__main__":
    worker.run(partial(exec, {WAIT!r}, {{}}), lambda line: print(line, flush=True))
"""


def test_a_worker_ends_when_its_driver_is_killed(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    command, path = [sys.executable, str(tmp_path / "driver.py")], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as driver:
        assert driver.stdout
        process = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
    wait_for(lambda: not process.is_running(), 30)


@pytest.mark.faults
def test_forks_train_all_variants_as_fresh_processes_do() -> None:
    """Bit for bit. Of the fresh ones there are a few, since each takes its time."""
    worker.stop()  # the server of other tests, which has imported less
    worker.warm_up()
    digests = {}
    for key in Params.read(ROOT / "params.yaml").blocks:
        name = key.rpartition(".")[2]
        lines: list[str] = []
        assert worker.run(partial(print_trained, recipe_of(name)), lines.append) == 0, lines
        digests[name] = lines[-1]
    for name in FRESH:
        recipe = json.dumps(asdict(recipe_of(name)))
        command = [sys.executable, "-c", TRAIN]
        done = subprocess.run(command, cwd=ROOT, input=recipe, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == digests[name]
