"""Does trainings and predictions ahead of their stages, which then take the results up (docs/running.md)."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

from pipeline.running.job import Job
from pipeline.running.view import View
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.model_files import ModelFiles

ATTEMPTS = 3  # of a job whose worker dies


class WorkerDied(Exception):  # noqa: N818
    """A job's process, or its machine, ended before the job did; the message says how."""


class Executor(Protocol):
    """Where jobs run: this machine's processes (`pool`) or a cluster's (`cluster`)."""

    slots: int  # the number of jobs at a time

    def run(self, job: Job, show: Callable[[str], None]) -> bool:
        """Do a job, and show each line that it prints; whether it succeeded. Raises WorkerDied."""

    def stop(self) -> None:
        """End what runs."""


def run(jobs: Sequence[Job], executor: Executor, view: View) -> None:
    """Do all jobs, the longest first; what fails leaves a note for its stage.

    A fine-tuning waits for the model that it begins with, if that is among the jobs.
    """
    waiting = longest_first(jobs)
    missing = {job.files for job in jobs if job.trains}
    models: dict[ModelFiles | None, Path] = {}
    running: dict[Future[bool], Job] = {}
    tries: Counter[ModelFiles] = Counter()
    with ThreadPoolExecutor(executor.slots) as threads:
        try:
            while True:
                ready = [job for job in waiting if job.base not in missing]
                for job in ready[: executor.slots - len(running)]:
                    waiting.remove(job)
                    tries[job.files] += 1
                    start = models.get(job.base, job.base.model) if job.base else None
                    started = replace(job, start=start)
                    running[threads.submit(_run, started, executor, view)] = started
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        if future.result():
                            models[job.files] = job.result().model
                            missing.discard(job.files)
                    except WorkerDied as death:
                        if tries[job.files] < ATTEMPTS:
                            waiting.insert(0, job)
                            continue
                        give_up(job, f"{death}, {ATTEMPTS} times")
                    view.advance(view.total)
        finally:
            executor.stop()


def _run(job: Job, executor: Executor, view: View) -> bool:
    """Do a job, and show it."""
    with view.bar(job.files.name) as bar:
        try:
            succeeded = executor.run(job, bar)
        except WorkerDied as death:
            bar.end(f"died ({death})")
            raise
    bar.end("done" if succeeded else "failed")
    return succeeded


def give_up(job: Job, reason: str) -> None:
    """Note why there is no result, for the stage."""
    if job.trains and not job.result().folder.is_dir():
        job_results.fail(digest_of(job.tags()), reason)


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, those with the most seconds to go first: their own, and those of what begins with them.

    A training of unknown length counts as the mean of the known ones.
    """
    mean = fmean([job.seconds for job in jobs if job.trains and job.seconds is not None] or [1])

    def seconds(job: Job) -> float:
        own = job.trains * (mean if job.seconds is None else job.seconds)
        return own + max((seconds(other) for other in jobs if other.base == job.files), default=0)

    return sorted(jobs, key=seconds, reverse=True)
