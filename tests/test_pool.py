"""Warm workers: what they send, how they end, and that one takes nothing with it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.running.pool import Pool, Report
from pipeline.shared.errors import PipelineError
from tests.conftest import ROOT


@dataclass(frozen=True)
class Job:
    """A job that does what it is told."""

    what: str
    kind: str = "one"

    def __call__(self, report: Report) -> Any:
        match self.what:
            case "print":
                print("one\ntwo", flush=True)
                print("three", file=sys.stderr)
                report((1, 2))
            case "refuse":
                raise PipelineError("data/raw: no images")
            case "bug":
                raise ZeroDivisionError("a bug")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "wait":
                time.sleep(600)
        return os.getpid()


def all_events(pool: Pool) -> list[tuple[str, str, Any]]:
    """The events until no job runs."""
    found = []
    while pool.is_busy:
        found += [(job.what, event, value) for job, event, value in pool.events()]
    return found


def ends(pool: Pool) -> dict[str, Any]:
    """The value with which each job ended."""
    return {what: value for what, event, value in all_events(pool) if event not in {"line", "report"}}


def test_lines_reports_and_results_come_through_in_order() -> None:
    with Pool(1) as pool:
        pool.start(Job("print"))
        *events, (_, end, pid) = all_events(pool)
    lines = [("print", "line", text) for text in ("one", "two", "three")]
    assert events == [*lines, ("print", "report", (1, 2))]
    assert (end, pid != os.getpid()) == ("done", True)


def test_a_worker_goes_on_after_errors_and_prints_the_traceback_of_a_bug() -> None:
    with Pool(1) as pool:
        pool.start(Job("pid"))
        first = ends(pool)["pid"]
        pool.start(Job("refuse"))
        assert all_events(pool) == [("refuse", "failed", "data/raw: no images")]
        pool.start(Job("bug"))
        *lines, end = all_events(pool)
        assert end == ("bug", "failed", "ZeroDivisionError('a bug')")
        assert "Traceback" in str(lines[0])
        pool.start(Job("pid"))
        assert ends(pool)["pid"] == first


def test_a_worker_that_dies_takes_only_its_own_job_with_it() -> None:
    with Pool(2) as pool:
        pool.start(Job("pid"))
        first = ends(pool)["pid"]
        pool.start(Job("die", kind="another"))
        pool.start(Job("pid"))
        assert pool.room == 0
        assert ends(pool) == {"die": "its process ended with -9", "pid": first}
        assert pool.room == 2


def test_jobs_of_another_kind_have_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    with Pool(1) as pool:
        for kind in ("one", "one", "other"):
            pool.start(Job("pid", kind))
            pids.append(ends(pool)["pid"])
        monkeypatch.setattr("pipeline.running.pool.JOBS", 1)
        pool.start(Job("pid", "other"))
        pids.append(ends(pool)["pid"])
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3
    assert not any(map(psutil.pid_exists, pids))


def test_workers_end_with_the_block_even_if_they_work(capfd: pytest.CaptureFixture[str]) -> None:
    with Pool(2) as pool:
        pool.start(Job("pid"))
        ends(pool)
        pool.start(Job("wait", "other"))
        processes = [psutil.Process(worker.process.pid) for worker in pool.busy]
    assert not any(process.is_running() for process in processes)
    assert capfd.readouterr() == ("", "")


DRIVER = """
import sys
from pipeline.running.pool import Pool
from tests.test_pool import Job
if __name__ == "__main__":
    with Pool(2) as pool:
        pool.start(Job("pid"))
        while pool.is_busy:
            for event in pool.events(): pass
        pool.start(Job("wait"))
        pool.start(Job("wait"))
        print(*[worker.process.pid for worker in pool.busy], flush=True)
        while pool.is_busy:
            for event in pool.events(): pass
"""


def test_workers_end_by_themselves_when_their_driver_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as driver:
        assert driver.stdout
        workers = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        driver.kill()
        gone, alive = psutil.wait_procs(workers, timeout=30)
    assert (len(gone), alive) == (2, [])
