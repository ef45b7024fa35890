"""The chosen model as `select` stores it in selection.json, and the scores that it is chosen from."""

import pandas as pd
from pydantic import BaseModel

from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import Accuracy, read_json
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import METRICS, SELECTION


class RunnerUp(BaseModel, frozen=True, strict=True):
    """The second-best variant."""

    variant: str
    mean_validation_accuracy: Accuracy


class Selection(BaseModel, frozen=True, strict=True):
    """The chosen model. Its test accuracy is only reported; nothing is chosen by it."""

    variant: str
    seed: int
    model_digest: str  # SHA-256 of its file
    validation_accuracy: Accuracy
    mean_validation_accuracy: Accuracy  # of its variant's seeds
    seeds: int
    test_accuracy: Accuracy
    runner_up: RunnerUp | None  # None if there is only one variant

    @property
    def files(self) -> ModelFiles:
        """The files of the chosen model."""
        return ModelFiles(self.variant, self.seed)


def read_selection() -> Selection:
    """The content of selection.json. Raises PipelineError if it is missing or damaged."""
    return read_json(SELECTION, Selection)


def read_scores(models: list[ModelFiles]) -> pd.DataFrame:
    """A row for each model: variant, seed, validation_accuracy, test_accuracy.

    Models that diverged have no row. Raises PipelineError if all did.
    """
    rows = []
    for files in models:
        if files.divergence() is None:
            scores = files.metrics()
            accuracies = {f"{part}_accuracy": scores[part]["accuracy"] for part in ("validation", "test")}
            rows.append({"variant": files.variant, "seed": files.seed} | accuracies)
    if not rows:
        raise PipelineError(f"{METRICS}: every training diverged, so there is no model to choose")
    return pd.DataFrame(rows)
