"""The chosen model as `select` stores it in selection.json, and the scores that it is chosen from."""

import pandas as pd
from pydantic import AliasChoices, BaseModel, Field, FiniteFloat

from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import Accuracy, read_json
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import METRICS, SELECTION

LOSSES = {"loss", "brier", "calibration_error"}  # the metrics of which lower values are better


# The scores, and what they were called when only accuracy could choose.
SCORE = AliasChoices("validation_score", "validation_accuracy")
MEAN_SCORE = AliasChoices("mean_validation_score", "mean_validation_accuracy")


class RunnerUp(BaseModel, frozen=True, strict=True):
    """The second-best variant."""

    variant: str
    mean_validation_score: FiniteFloat = Field(validation_alias=MEAN_SCORE)


class Selection(BaseModel, frozen=True, strict=True):
    """The chosen model. Its test accuracy, as it is served, is only reported; nothing is chosen by it."""

    variant: str
    seed: int
    model_digest: str  # SHA-256 of its file
    metric: str = "accuracy"  # by which it was chosen; the scores are its values
    validation_score: FiniteFloat = Field(validation_alias=SCORE)
    mean_validation_score: FiniteFloat = Field(validation_alias=MEAN_SCORE)  # of its variant's seeds
    seeds: int
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    runner_up: RunnerUp | None  # None if there is only one variant

    @property
    def files(self) -> ModelFiles:
        """The files of the chosen model."""
        return ModelFiles(self.variant, self.seed)

    @property
    def reason(self) -> str:
        """For what it was chosen, in words."""
        return f"{extreme(self.metric)} mean validation {in_words(self.metric)}"


def extreme(metric: str) -> str:
    """What the best value of a metric is."""
    return "lowest" if metric in LOSSES else "highest"


def merit(metric: str, value: float) -> float:
    """A metric's value with a sign such that more is better."""
    return -value if metric in LOSSES else value


def in_words(metric: str) -> str:
    """A metric's name in a sentence."""
    return metric.replace("_", " ")


def read_selection() -> Selection:
    """The content of selection.json. Raises PipelineError if it is missing or damaged."""
    return read_json(SELECTION, Selection)


def read_scores(models: list[ModelFiles]) -> pd.DataFrame:
    """A row for each model: variant, seed and each score, such as validation_accuracy and test_served_loss.

    Models that diverged have no row. Raises PipelineError if all did.
    """
    rows = []
    for files in models:
        if files.divergence() is None:
            scores = files.metrics()
            values = {f"{part}_{name}": value for part, of in scores.items() for name, value in of.items()}
            rows.append({"variant": files.variant, "seed": files.seed} | values)
    if not rows:
        raise PipelineError(f"{METRICS}: every training diverged, so there is no model to choose")
    return pd.DataFrame(rows)
