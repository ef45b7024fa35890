"""Does trainings and predictions ahead of their stages, which then take the results up (docs/running.md)."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow

from pipeline.learning.key import code_digest, prediction_key, training_tags
from pipeline.learning.recipe import Recipe
from pipeline.records import tracking
from pipeline.running.pool import Pool, Report
from pipeline.running.view import View
from pipeline.shared import results
from pipeline.shared.arrays import digest_of
from pipeline.shared.errors import one_line
from pipeline.shared.lock import locked
from pipeline.shared.trained import Trained

ATTEMPTS = 3  # of a job whose worker dies


@dataclass(frozen=True)
class Job:
    """A training and the prediction of its model, or one of the two.

    `seconds` is what the training took before. The last three fields are known when the job starts: the tags
    of the training, the model file that a fine-tuning begins with, the digest of each stage's code.
    """

    trained: Trained
    recipe: Recipe
    trains: bool = False
    predicts: bool = False
    seconds: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    start: Path | None = None
    code: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Trained | None:
        """The model that a fine-tuning begins with."""
        return self.recipe.base(self.trained.seed) if self.trains else None

    @property
    def stages(self) -> tuple[str, str]:
        """DVC's names of its two stages."""
        kinds = ("finetune", "predict_finetuned") if self.recipe.init_from else ("train", "predict")
        return f"{kinds[0]}@{self.trained.name}", f"{kinds[1]}@{self.trained.name}"

    @property
    def kind(self) -> list[Any]:
        """What a process cannot change: its threads and the modules that it has imported."""
        return [self.recipe.threads, self.recipe.share_batches, self.code]

    def ready(self, models: dict[Trained, Path]) -> "Job":
        """The job with the fields that are known when it starts; `models` are the folders made so far."""
        code = {stage: code_digest(stage) for stage in ("train", "predict")}
        if not self.trains:
            return replace(self, code=code)
        start = models.get(self.base, self.base.folder) / self.base.model.name if self.base else None
        tags = training_tags(self.trained, self.recipe, start, code["train"])
        return replace(self, code=code, start=start, tags=tags)

    def __call__(self, report: Report) -> Path:
        """Train and predict, in a worker; the folder of the trained model."""
        from pipeline.predict import predict
        from pipeline.training.body import train  # TensorFlow

        folder = self.trained.folder
        if self.trains:

            def training(result: Path) -> None:
                train(replace(self.trained, ahead=result), self.recipe, self.tags, self.start, report)

            folder = self._make("train", digest_of(self.tags), training)
        if self.predicts:
            model = folder / self.trained.model.name
            key = prediction_key(model, self.recipe, self.code["predict"])
            self._make("predict", key, partial(predict, model, self.recipe))
        return folder

    def _make(self, stage: str, key: str, write: Any) -> Path:
        """The folder of a result, made under the lock that its stage takes."""
        with locked(f"{stage}-{self.trained.name}"):
            try:
                return results.make(key, write)
            except Exception as error:
                results.fail(key, one_line(error) or repr(error))
                raise


def run(jobs: list[Job], workers: int, view: View) -> None:
    """Do all jobs, at most so many at a time, the longest first; what fails leaves a note for its stage.

    A fine-tuning waits for the model that it begins with, if that is among the jobs.
    """
    waiting = longest_first(jobs)
    tries = {job.trained: 0 for job in jobs}
    models: dict[Trained, Path] = {}
    results.forget_failures()
    with Pool(workers) as pool:
        while True:
            can_start = [job for job in waiting if job.base not in tries or job.base in models]
            for job in can_start[: pool.room]:
                waiting.remove(job)
                tries[job.trained] += 1
                view.start(job.trained.name)
                pool.start(job.ready(models))
            if not pool.is_busy:
                return
            for job, event, value in pool.events():
                view.show(job.trained.name, event, value)
                if event == "done":
                    models[job.trained] = value
                elif event == "died" and tries[job.trained] < ATTEMPTS:
                    waiting.insert(0, job)
                elif event == "died" and job.trains and not results.folder_of(digest_of(job.tags)).is_dir():
                    results.fail(digest_of(job.tags), f"{value}, {ATTEMPTS} times")


def clear(experiment: str) -> None:
    """Remove all results, once every stage is up to date. The run of one that was not taken up gets a tag."""
    for tags in results.clear():
        if run := tracking.find_run(experiment, tags):
            mlflow.MlflowClient().set_tag(run.info.run_id, "taken_up", "false")


def longest_first(jobs: list[Job]) -> list[Job]:
    """The jobs, those with the most seconds to go first: their own, and those of what begins with them.

    A training of unknown length counts as the mean of the known ones.
    """
    known = [job.seconds for job in jobs if job.trains and job.seconds is not None]
    unknown = sum(known) / len(known) if known else 1

    def seconds(job: Job) -> float:
        own = 0 if not job.trains else unknown if job.seconds is None else job.seconds
        return own + max((seconds(other) for other in jobs if other.base == job.trained), default=0)

    return sorted(jobs, key=seconds, reverse=True)
