"""Where jobs run: in processes of this machine, or on a Ray cluster."""

from collections.abc import Callable, Sequence
from typing import Protocol

import joblib

from pipeline.params import Params
from pipeline.running.job import Job, WorkerDied
from pipeline.running.local_executor import Pool
from pipeline.running.view import Bar
from pipeline.support.errors import PipelineError

ATTEMPTS = 3  # of a job whose worker dies


class Executor(Protocol):
    """Runs jobs, each in a worker of its own: `local_executor.Pool` or `ray_executor.Cluster`."""

    slots: int  # the number of jobs at a time

    def run(self, job: Job, show: Callable[[str], None]) -> bool:
        """Do a job, and show each line that it prints; whether it succeeded.

        If `show` raises an exception, the job is killed and the exception is passed on. Raises WorkerDied,
        and CancelledError if the executor is stopped.
        """

    def stop(self) -> None:
        """End what runs."""


def make_executor(name: str, params: Params, jobs: Sequence[Job], slots: int | None) -> Executor:
    """The executor `local` or `ray`, for jobs like these. By default it has a slot for every core or node.

    Raises PipelineError if Ray is not installed, or its cluster has no room.
    """
    if name == "local":
        return Pool(slots or max(1, joblib.cpu_count() // params.training.threads), jobs)
    try:
        from pipeline.running.ray_executor import Cluster  # an optional dependency
    except ModuleNotFoundError as error:
        raise PipelineError(f"--executor ray: {error.name} is not installed: run `make cluster`") from error
    return Cluster(params.cluster, jobs, slots)


def attempt(job: Job, executor: Executor, bar: Bar, show: Callable[[str], None] | None = None) -> bool:
    """Do a job, again if its worker dies, and show it in a bar or with `show`; whether it succeeded.

    Raises WorkerDied after the last attempt, and CancelledError.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            return executor.run(job, show or bar)
        except WorkerDied as death:
            bar.end(f"died ({death})")
            reason = f"{death}, {ATTEMPTS} times"
    raise WorkerDied(reason)
