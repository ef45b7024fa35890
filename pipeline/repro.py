"""`dvc repro`, with training and prediction done first, side by side in workers.

    python -m pipeline.repro [--jobs N] [--executor ray]

Prints the plan. Then N workers train and predict what is out of date, and one `dvc repro --keep-going` walks
the stages, which take these results up (docs/running.md). If a training fails, the others still run.

Reads and writes what the stages do. Exits with status 1 if a stage failed, and with 130 on Ctrl-C, which
stops what runs and keeps finished results.
"""

import argparse
import re
import signal
import sys
from collections.abc import Sequence

import joblib
import mlflow
from rich.console import Console

from pipeline import integrity, plan
from pipeline.learning.recipe import code_digests
from pipeline.params import Params
from pipeline.records import tracking
from pipeline.running import ahead, walk, worker
from pipeline.running.job import Job
from pipeline.running.pool import Pool
from pipeline.running.view import View
from pipeline.shared import results
from pipeline.shared.errors import PipelineError
from pipeline.shared.lock import command


@command
def main() -> None:
    """Print the plan and run it."""
    parser = argparse.ArgumentParser(description="`dvc repro` with its trainings side by side.")
    parser.add_argument("--jobs", default="cores", help="trainings at a time; by default, as the cores allow")
    parser.add_argument(
        "--executor", default="local", help="`local`, or `ray` for a cluster (docs/cluster.md)"
    )
    arguments = parser.parse_args()
    if (executor := arguments.executor) not in {"local", "ray"}:
        raise PipelineError(f"--executor: must be `local` or `ray`; received {executor!r}")
    jobs = arguments.jobs
    if not re.fullmatch("cores|[1-9][0-9]*", jobs):
        raise PipelineError(f"--jobs: must be `cores` or a whole number from 1; received {jobs!r}")
    sys.exit(reproduce(plan.checked_params(), None if jobs == "cores" else int(jobs), executor))


def reproduce(params: Params, jobs: int | None = None, executor: str = "local") -> int:
    """Restore damaged files, print the plan, and bring all stages up to date. Returns the exit status.

    At most `jobs` trainings run at a time, by default as many as the cores have room for; one on each GPU.
    """
    for number in walk.SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, signal.default_int_handler)
    try:
        integrity.mend_everything()
        stages, code = plan.outdated_stages(), code_digests()
        if executor == "local" and any("@" in stage for stage in stages):  # a training or a prediction
            worker.warm_up()
        stages = plan.after_recipes(stages)
        todo = plan.jobs_ahead(stages, params.data.dataset, code)
        plan.show(stages, todo)
        with View(Console(), len(todo)) as view:
            results.forget_failures()
            if todo:
                ahead.run(todo, make_executor(executor, params, todo, jobs), view)
        if walk.dvc_repro():
            forget_results(params.data.dataset)
            return 0
    except KeyboardInterrupt:
        print("interrupted. Run the same command to continue.", file=sys.stderr)
        return 130
    left = ", ".join(plan.outdated_stages())
    print(f"error: not done: {left}. Run the same command to continue.", file=sys.stderr)
    return 1


def make_executor(name: str, params: Params, todo: Sequence[Job], jobs: int | None) -> ahead.Executor:
    """Where the trainings run. Raises PipelineError if Ray is not installed, or its cluster has no room."""
    if name == "local":
        return Pool(jobs or max(1, joblib.cpu_count() // params.training.threads), todo)
    try:
        from pipeline.running.cluster import Cluster  # an optional dependency
    except ModuleNotFoundError as error:
        raise PipelineError(f"--executor ray: {error.name} is not installed: run `make cluster`") from error
    return Cluster(params.cluster, todo, jobs)


def forget_results(experiment: str) -> None:
    """Remove all results, once every stage is up to date. The run of one that was not taken up gets a tag."""
    for tags in results.clear():
        if run := tracking.find_run(experiment, tags):
            mlflow.MlflowClient().set_tag(run.info.run_id, "taken_up", "false")


if __name__ == "__main__":
    main()
