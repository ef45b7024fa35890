"""`dvc repro`, with training and prediction done first, side by side in workers.

    python -m pipeline repro [--jobs N] [--executor ray]

Prints the plan. Then N workers train and predict what is out of date, and one `dvc repro --keep-going` walks
the stages, which copy these results (docs/running.md). If a training fails, the others still run.

Reads and writes what the stages do. Exits with status 1 if a stage failed, and with 130 on Ctrl-C, which
stops what runs and keeps finished results.
"""

import signal
import sys

import click
from rich.console import Console

from pipeline.commands import plan
from pipeline.core.result_keys import code_digests
from pipeline.params import Params
from pipeline.running import dvc_repro, job_queue, stage_server, worker
from pipeline.running.job_queue import make_executor
from pipeline.running.view import View
from pipeline.support import integrity, job_results, mlflow_runs
from pipeline.support.locks import SingleInstance


@click.command(cls=SingleInstance)
@click.option(
    "--jobs", type=click.IntRange(0), default=0, help="Trainings at a time; by default all that fit."
)
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="Where they run.")
def main(jobs: int, executor: str) -> None:
    """Run all stages, trainings side by side."""
    sys.exit(reproduce(plan.read_params(), jobs or None, executor))


def reproduce(params: Params, jobs: int | None = None, executor: str = "local") -> int:
    """Check all files, print the plan, and bring all stages up to date. Returns the exit status.

    At most `jobs` trainings run at a time, by default as many as the cores have room for; one on each GPU.
    """
    for number in dvc_repro.SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, signal.default_int_handler)
    worker.end_with_make()
    try:
        integrity.check_everything()
        stages, code = plan.outdated_stages(), code_digests()
        with stage_server.serving(stages):
            stages = plan.after_recipes(stages)
            todo = plan.jobs_ahead(stages, params.data.dataset, code)
            plan.show(stages, todo)
            with View(Console(), len(todo)) as view:
                job_results.forget_failures()
                if todo:
                    job_queue.run(todo, make_executor(executor, params, todo, jobs), view)
            if dvc_repro.run():
                forget_results(params.data.dataset)
                return 0
    except KeyboardInterrupt:
        print("interrupted. Run the same command to continue.", file=sys.stderr)
        return 130
    left = ", ".join(plan.outdated_stages())
    print(f"error: not done: {left}. Run the same command to continue.", file=sys.stderr)
    return 1


def forget_results(experiment: str) -> None:
    """Remove all results, and tag the runs of those that no stage copied: params.yaml changed meanwhile."""
    for tags in job_results.clear():
        if run := mlflow_runs.find_run(experiment, tags):
            mlflow_runs.note(run, f"{tags['variant']}-{tags['seed']}", unused="true")
