"""A job: what a worker does ahead of two stages, for one variant and seed."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipeline.core.recipe import Recipe
from pipeline.core.result_keys import prediction_key, training_tags
from pipeline.running.view import report
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.locks import locked
from pipeline.support.model_files import ModelFiles


class WorkerDied(Exception):  # noqa: N818
    """A job's process, or its machine, ended before the job did; the message says how."""


@dataclass(frozen=True)
class Job:
    """A training and the prediction of its model, or one of the two.

    `code` is the digest of each stage's modules, `seconds` what the training took before. `start`, set when
    the job starts, is the model file whose weights the training starts with. On a node of a cluster, `origin`
    are the tags of the folder that asked for the job, and `tracks` says whether it logs to MLflow.
    """

    files: ModelFiles
    recipe: Recipe
    code: dict[str, str]
    trains: bool = True
    predicts: bool = True
    seconds: float | None = None
    start: Path | None = None
    origin: dict[str, str] = field(default_factory=dict)
    tracks: bool = True

    @property
    def base(self) -> ModelFiles | None:
        """The model that a fine-tuning begins with."""
        return self.recipe.base(self.files.seed) if self.trains else None

    @property
    def stages(self) -> tuple[str, str]:
        """DVC's names of its two stages."""
        kinds = ("finetune", "predict_finetuned") if self.recipe.init_from else ("train", "predict")
        return f"{kinds[0]}@{self.files.name}", f"{kinds[1]}@{self.files.name}"

    def tags(self) -> dict[str, str]:
        """The tags of its training, whose digest is the key of the result."""
        return training_tags(self.files, self.recipe, self.start, self.code["train"])

    def result(self) -> ModelFiles:
        """Its model, which its stage has not copied yet if it trains."""
        return replace(
            self.files, result=job_results.folder_of(digest_of(self.tags())) if self.trains else None
        )

    def __call__(self) -> None:
        """Train and predict, in a worker, under the locks that the stages take."""
        from pipeline.stages.predict import predict
        from pipeline.stages.train.training import train  # TensorFlow

        def training(folder: Path) -> None:
            unfinished = replace(self.files, result=folder)
            train(unfinished, self.recipe, self.tags(), self.start, report, self.origin, self.tracks)

        report((0, self.recipe.settings.epochs, 0.0))
        if self.trains:
            with locked(f"train-{self.files.name}"):
                job_results.make(digest_of(self.tags()), training)
        if self.predicts:
            model = self.result().model
            key = prediction_key(model, self.recipe, self.code["predict"])
            with locked(f"predict-{self.files.name}"):
                job_results.make(key, partial(predict, model, self.recipe))
