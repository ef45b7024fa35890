"""Does trainings and predictions ahead of their stages, which then take the results up (docs/running.md)."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from pipeline.learning.recipe import Recipe, prediction_key, training_tags
from pipeline.running import worker
from pipeline.running.view import View, in_words, report
from pipeline.shared import results
from pipeline.shared.arrays import digest_of
from pipeline.shared.lock import locked
from pipeline.shared.trained import Trained

ATTEMPTS = 3  # of a job whose worker dies
FAILED = 1  # the exit status of a worker whose job failed, and not the worker


@dataclass(frozen=True)
class Job:
    """A training and the prediction of its model, or one of the two, for a worker.

    `code` is the digest of each stage's modules, `seconds` what the training took before. Known when the job
    starts: `start`, the model file that a fine-tuning begins with, and `gpu`, the only one that it sees.
    """

    trained: Trained
    recipe: Recipe
    code: dict[str, str]
    trains: bool = True
    predicts: bool = True
    seconds: float | None = None
    start: Path | None = None
    gpu: str | None = None

    @property
    def base(self) -> Trained | None:
        """The model that a fine-tuning begins with."""
        return self.recipe.base(self.trained.seed) if self.trains else None

    @property
    def stages(self) -> tuple[str, str]:
        """DVC's names of its two stages."""
        kinds = ("finetune", "predict_finetuned") if self.recipe.init_from else ("train", "predict")
        return f"{kinds[0]}@{self.trained.name}", f"{kinds[1]}@{self.trained.name}"

    def tags(self) -> dict[str, str]:
        """The tags of its training, whose digest is the key of the result."""
        return training_tags(self.trained, self.recipe, self.start, self.code["train"])

    def result(self) -> Trained:
        """Its model, which no stage has taken up yet if it trains."""
        return replace(self.trained, ahead=results.folder_of(digest_of(self.tags())) if self.trains else None)

    def __call__(self) -> None:
        """Train and predict, in a worker, under the locks that the stages take."""
        from pipeline.predict import predict
        from pipeline.training.body import train  # TensorFlow

        def training(folder: Path) -> None:
            train(replace(self.trained, ahead=folder), self.recipe, self.tags(), self.start, report)

        if self.trains:
            with locked(f"train-{self.trained.name}"):
                results.make(digest_of(self.tags()), training)
        if self.predicts:
            model = self.result().model
            key = prediction_key(model, self.recipe, self.code["predict"])
            with locked(f"predict-{self.trained.name}"):
                results.make(key, partial(predict, model, self.recipe))


def run(jobs: Sequence[Job], workers: int, view: View) -> None:
    """Do all jobs, at most so many at a time, the longest first; what fails leaves a note for its stage.

    A fine-tuning waits for the model that it begins with, if that is among the jobs. If the trainings are
    for GPUs, each has one to itself.
    """
    results.forget_failures()
    on_gpus = any(job.recipe.device == "gpu" for job in jobs)
    free: list[str | None] = [*worker.gpus()[:workers]] if on_gpus else [None] * workers
    waiting = longest_first(jobs)
    missing = {job.trained for job in jobs}
    models: dict[Trained | None, Path] = {}
    running: dict[Future[int | None], Job] = {}
    tries: Counter[Trained] = Counter()
    with ThreadPoolExecutor(workers) as threads:
        try:
            while True:
                ready = [job for job in waiting if job.base not in missing]
                for job in ready[: len(free)]:
                    waiting.remove(job)
                    tries[job.trained] += 1
                    start = models.get(job.base, job.base.model) if job.base else None
                    started = replace(job, start=start, gpu=free.pop(0))
                    running[threads.submit(_run, started, view)] = started
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, status = running.pop(future), future.result()
                    free.append(job.gpu)
                    view.advance(view.total, status in {0, FAILED})
                    if status == 0:
                        models[job.trained] = job.result().model
                        missing.discard(job.trained)
                    elif status != FAILED and tries[job.trained] < ATTEMPTS:
                        waiting.insert(0, job)
                    elif status != FAILED and job.trains and not job.result().folder.is_dir():
                        reason = f"its process ended with {status}, {ATTEMPTS} times"
                        results.fail(digest_of(job.tags()), reason)
        finally:
            worker.stop()


def _run(job: Job, view: View) -> int | None:
    """Do a job in a worker, and show it; the worker's exit status."""
    started = time.monotonic()
    with view.bar(job.trained.name) as show:
        status = worker.run(job, show, job.gpu)
    end = "done" if status == 0 else "failed" if status == FAILED else f"died ({status})"
    view.show(f"{job.trained.name}: {end} after {in_words(time.monotonic() - started)}")
    return status


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, those with the most seconds to go first: their own, and those of what begins with them.

    A training of unknown length counts as the mean of the known ones.
    """
    mean = fmean([job.seconds for job in jobs if job.trains and job.seconds is not None] or [1])

    def seconds(job: Job) -> float:
        own = job.trains * (mean if job.seconds is None else job.seconds)
        return own + max((seconds(other) for other in jobs if other.base == job.trained), default=0)

    return sorted(jobs, key=seconds, reverse=True)
