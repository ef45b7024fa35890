"""Does trainings and predictions ahead of their stages, which then copy the results (docs/running.md)."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pipeline.running.executor import Executor, attempt
from pipeline.running.job import Job, WorkerDied
from pipeline.running.view import View
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.model_files import ModelFiles


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
                    start = models.get(job.base, job.base.model) if job.base else None
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
