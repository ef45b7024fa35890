"""Runs jobs on an executor, so many at a time: trainings and predictions ahead of their stages, which then
copy the results (docs/running.md), and the trials of a search.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

import joblib

from pipeline.params import Params
from pipeline.running.job import Job, WorkerDied
from pipeline.running.local_executor import Pool
from pipeline.running.view import Bar, View
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles

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


def run(jobs: Sequence[Job], executor: Executor, view: View) -> None:
    """Do all jobs, the longest first; what fails leaves a note for its stage.

    A fine-tuning waits for the model that it begins with, if that is among the jobs.
    """
    waiting = longest_first(jobs)
    missing = {job.files for job in jobs if job.trains}
    models: dict[ModelFiles | None, Path] = {}
    running: dict[Future[bool], Job] = {}
    with ThreadPoolExecutor(executor.slots) as threads:
        try:
            while True:
                ready = [job for job in waiting if job.base not in missing]
                for job in ready[: executor.slots - len(running)]:
                    waiting.remove(job)
                    start = models.get(job.base, job.base.model) if job.base else job.recipe.start
                    started = replace(job, start=start)
                    running[threads.submit(_run, started, executor, view)] = started
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if future.result():
                        models[job.files] = job.result().model
                        missing.discard(job.files)
                    view.advance(view.total)
        finally:
            executor.stop()


def _run(job: Job, executor: Executor, view: View) -> bool:
    """Do a job, and show it; whether it succeeded. If its worker dies each time, note that for the stage."""
    with view.bar(job.files.name) as bar:
        try:
            succeeded = attempt(job, executor, bar)
        except WorkerDied as death:
            if job.trains and not job.result().folder.is_dir():
                job_results.fail(digest_of(job.tags()), str(death))
            return False
        bar.end("done" if succeeded else "failed")
    return succeeded


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, those with the most seconds to go first: their own, and those of what begins with them.

    A training of unknown length counts as the mean of the known ones.
    """
    mean = fmean([job.seconds for job in jobs if job.trains and job.seconds is not None] or [1])

    def seconds(job: Job) -> float:
        own = job.trains * (mean if job.seconds is None else job.seconds)
        return own + max((seconds(other) for other in jobs if other.base == job.files), default=0)

    return sorted(jobs, key=seconds, reverse=True)
