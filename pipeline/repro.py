"""`dvc repro` with independent stages side by side, to the same end.

    python -m pipeline.repro [--jobs N]

Prints the plan. Then each stage that is out of date runs as `dvc --wait-for-lock repro --single-item STAGE`,
at most N at a time, once the stages that it depends on are done. A last `dvc repro` confirms that nothing
is left. If a stage fails, those that do not depend on it still run.

Reads and writes what the stages do. Exits with status 1 if a stage failed, and with 130 on Ctrl-C, which
stops the running stages and keeps finished results.
"""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Collection

import joblib
import networkx as nx
from rich.console import Console

from pipeline import integrity, plan
from pipeline.params import Params
from pipeline.running import stage
from pipeline.running.live import View
from pipeline.shared.errors import PipelineError, one_line_errors
from pipeline.shared.load_params import load_params

INTERRUPTED = 130


@one_line_errors
def main() -> None:
    """Print the plan and run it."""
    asked_for = _jobs()
    params = load_params(Params)
    params.training.check_versions()
    jobs = asked_for or default_jobs(params.training.threads)
    integrity.mend_everything()
    stages = plan.stages_to_run()
    seconds = plan.seconds_of_trainings(stages, params.data.dataset)
    plan.show(stages, seconds)
    sys.exit(reproduce(stages, seconds, jobs))


def default_jobs(threads: int) -> int:
    """The number of trainings with so many threads that fit on the cores of this process."""
    return max(1, joblib.cpu_count() // threads)


def reproduce(stages: "nx.DiGraph[str]", seconds: dict[str, float | None], jobs: int) -> int:
    """Run all stages, at most `jobs` at a time, and print which failed and why; the exit status.

    `seconds` are what each training is expected to take, None if that is unknown.
    """
    with View(Console(), len(stages)) as view:
        failed = asyncio.run(_run_all(stages, longest_first(stages, seconds), jobs, view))
    if failed is None:
        return INTERRUPTED
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
        dependents = nx.ancestors(stages, name) if name in stages else set()
        if dependents:
            print(f"  skipped: {', '.join(s for s in stages if s in dependents)}", file=sys.stderr)
    if failed:
        print("Run the same command to continue.", file=sys.stderr)
    return 1 if failed else 0


def longest_first(stages: "nx.DiGraph[str]", seconds: dict[str, float | None]) -> list[str]:
    """The stages, those with the longest path to the end first, in seconds of training.

    A training of unknown length counts as the mean of the known ones, any other stage as zero.
    """
    known = [value for value in seconds.values() if value is not None]
    unknown = sum(known) / len(known) if known else 1
    left: dict[str, float] = {}
    for name in nx.topological_sort(stages):  # those that depend on a stage come before it
        own = seconds.get(name, 0)
        after = max((left[other] for other in stages.predecessors(name)), default=0)
        left[name] = after + (unknown if own is None else own)
    return sorted(stages, key=lambda name: -left[name])


def ready(stages: "nx.DiGraph[str]", done: set[str], started: Collection[str]) -> set[str]:
    """The stages that have not started and whose dependencies are done."""
    return {name for name in stages if name not in started and done.issuperset(stages.successors(name))}


async def _run_all(
    stages: "nx.DiGraph[str]", order: list[str], jobs: int, view: View
) -> dict[str, str] | None:
    """Run the stages and a last `dvc repro`; which failed and why, None if interrupted."""
    _cancel_on_signals(view)
    try:
        failed = await _run_stages(stages, order, jobs, view)
        if not failed and (reason := await stage.run("dvc repro", [], view)):
            failed = {"dvc repro": reason}
    except asyncio.CancelledError:
        stopped = ", ".join(view.rows) or "nothing that was running"
        view.print(f"interrupted: stopped {stopped}. Run the same command to continue.")
        return None
    return failed


async def _run_stages(stages: "nx.DiGraph[str]", order: list[str], jobs: int, view: View) -> dict[str, str]:
    """Start each stage when it is ready and a job is free; which failed and why."""
    done: set[str] = set()
    failed: dict[str, str] = {}
    running: dict[asyncio.Task[str], str] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            can_start = ready(stages, done, {*done, *failed, *running.values()})
            for name in [name for name in order if name in can_start][: jobs - len(running)]:
                running[group.create_task(stage.run(name, ["--single-item", name], view))] = name
            if not running:
                return failed
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                name = running.pop(task)
                if reason := task.result():
                    failed[name] = reason
                else:
                    done.add(name)


def _cancel_on_signals(view: View) -> None:
    """Make Ctrl-C, `kill` and a closed terminal cancel the running task, and with it all stages."""
    task = asyncio.current_task()

    def cancel() -> None:
        if task and task.cancel() and task.cancelling() == 1:
            view.print(f"stopping {', '.join(view.rows)}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            asyncio.get_running_loop().add_signal_handler(number, cancel)


def _jobs() -> int | None:
    parser = argparse.ArgumentParser(description="`dvc repro` with independent stages side by side.")
    parser.add_argument("--jobs", default="cores", help="stages at a time; by default, as the cores allow")
    jobs = parser.parse_args().jobs
    if jobs == "cores":
        return None
    if not re.fullmatch("[1-9][0-9]*", jobs):
        raise PipelineError(f"--jobs: `cores` and whole numbers from 1 are allowed; received {jobs!r}")
    return int(jobs)


if __name__ == "__main__":
    main()
