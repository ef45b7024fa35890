"""The files of a model, which one variant gives with one seed: their paths, its record and its scores."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, FiniteFloat, StrictInt, Tag, model_validator

from pipeline.support.digests import file_digest
from pipeline.support.json_and_csv import Accuracy, Number, read_json, read_table
from pipeline.support.locks import is_free
from pipeline.support.paths import CHECKPOINTS, EVALUATION, METRICS, MODELS, PREDICTIONS, RECIPES, SEARCHES

if TYPE_CHECKING:
    import pandas as pd

AFTER_TRAINING = 1_000_000  # MLflow's step of a model; the metrics of an epoch's step would be its scores
INDEX = RECIPES / "_index.json"  # no variant's name starts with an underscore
ACCURACY = "validation/accuracy"
SERVED = "_served"  # the end of the names of scores of a model as it is served
SCORED = ("validation", "test", f"validation{SERVED}", f"test{SERVED}")


class TrainingRecord(BaseModel):
    """What training.json holds: tags, among them `status`, parameters and final metrics of a training."""

    model_config = ConfigDict(frozen=True)

    tags: dict[str, str]
    params: dict[str, Any]
    metrics: dict[str, int | FiniteFloat]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        required = {"status", "reason"} if self.tags.get("status") == "diverged" else {"status"}
        missing = [f"tags.{key}" for key in required - self.tags.keys()]
        if "reason" not in required:
            missing += [f"metrics.{key}" for key in {ACCURACY, "parameters"} - self.metrics.keys()]
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))}: missing")
        if not 0 <= self.metrics.get(ACCURACY, 0) <= 1:
            raise ValueError(f"metrics.{ACCURACY}: must be from 0 to 1")
        return self

    @property
    def identity(self) -> dict[str, str]:
        """The tags that identify what decided the weights."""
        return {key: value for key, value in self.tags.items() if key not in {"status", "reason"}}

    @property
    def divergence(self) -> str | None:
        """Why it has no scores, if the training diverged."""
        return self.tags["reason"] if self.tags["status"] == "diverged" else None

    @property
    def outcome(self) -> str:
        """How the training ended, in a line."""
        if self.divergence is not None:
            return f"diverged: {self.divergence}"
        return f"validation accuracy {self.metrics[ACCURACY]:.4f}"


class Part(BaseModel):
    """The scores on one part of the images."""

    model_config = ConfigDict(extra="allow", strict=True)

    __pydantic_extra__: dict[str, FiniteFloat]
    accuracy: Accuracy


class Scored(BaseModel):
    """What metrics/VARIANT-SEED.json holds: scores with one view, and of the model as it is served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    validation: Part
    test: Part
    validation_served: Part
    test_served: Part


class Diverged(BaseModel):
    """What it holds if the training diverged."""

    status: Literal["diverged"]
    reason: str


Scores = Annotated[
    Annotated[Scored, Tag("(scored)")] | Annotated[Diverged, Tag("(diverged)")],
    Discriminator(lambda content: "(diverged)" if "status" in content else "(scored)"),
]


@dataclass(frozen=True)
class ModelFiles:
    """The files of the model that one variant gives with one seed."""

    variant: str
    seed: StrictInt
    result: Path | None = field(default=None, compare=False)  # its folder until its stage copies it

    @property
    def name(self) -> str:
        """VARIANT-SEED, the name of its files and of its MLflow run."""
        return f"{self.variant}-{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder that its training writes."""
        return self.result or MODELS / self.name

    @property
    def model(self) -> Path:
        """The Keras model."""
        return self.folder / "model.keras"

    @property
    def history(self) -> Path:
        """The metrics of each epoch, a CSV file."""
        return self.folder / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """The state of its training after the last epoch, while it is not finished."""
        return CHECKPOINTS / f"{self.name}.npz"

    @property
    def predictions(self) -> Path:
        """The folder of its probabilities for validation and test images."""
        return PREDICTIONS / self.name

    @property
    def evaluation(self) -> Path:
        """The folder of its tables and figures."""
        return EVALUATION / self.name

    @property
    def scores(self) -> Path:
        """The file of its scores."""
        return METRICS / f"{self.name}.json"

    def record(self) -> TrainingRecord:
        """The record of its training."""
        return read_json(self.folder / "training.json", TrainingRecord)

    def epochs(self) -> "pd.DataFrame":
        """The metrics of each epoch: a row each, in which `epoch` counts from 1."""
        kind = FiniteFloat if self.record().divergence is None else Number
        losses, accuracies = ("loss", "val_loss"), ("accuracy", "val_accuracy")
        columns = {"epoch": int} | dict.fromkeys(losses, kind) | dict.fromkeys(accuracies, Accuracy)
        return read_table(self.history, columns)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Its scores by part of the images and name; empty if its training diverged."""
        scores = read_json(self.scores, Scores)
        return scores.model_dump() if isinstance(scores, Scored) else {}

    def divergence(self) -> str | None:
        """Why it has no scores, if its training diverged."""
        scores = read_json(self.scores, Scores)
        return scores.reason if isinstance(scores, Diverged) else None

    def tags(self) -> dict[str, str]:
        """The tags that identify its MLflow run."""
        return {
            "variant": self.variant,
            "seed": str(self.seed),
            "model_digest": file_digest(self.model),
        }


def all_models() -> list[ModelFiles]:
    """The models that params.yaml asks for, in its order, as `recipes` listed them."""
    models: list[ModelFiles] = read_json(INDEX, list[ModelFiles])
    return models


def remove_leftovers(models: list[ModelFiles], variants: Collection[str]) -> list[Path]:
    """Remove the checkpoints of all trainings but those of `models`, and the searches of all but `variants`.

    Leaves what a running process uses. Returns the paths of what it removed.
    """
    names = {files.name for files in models}
    locks = {path: f"train-{path.stem}" for path in CHECKPOINTS.glob("*.npz") if path.stem not in names}
    searches = [path for path in SEARCHES.glob("*") if path.is_dir() and path.name not in variants]
    locks |= {path: f"search-{path.name}" for path in searches}
    removed = [path for path in sorted(locks) if is_free(locks[path])]
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed
