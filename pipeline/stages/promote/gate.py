"""The gate: whether a candidate may become champion, and why. All decisions rest on validation data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from pipeline.shared.selection import MEAN_SCORE, SCORE, extreme, in_words, merit
from pipeline.stages.promote import packaging
from pipeline.support.digests import digest_of
from pipeline.support.json_and_csv import Accuracy


@dataclass(frozen=True)
class Candidate:
    """A trained model that may become champion, and the data that it was scored on."""

    registered_name: str
    run_id: str | None  # None if MLflow has no run of it yet
    model_id: str | None  # of the model that its run logged
    model: Path
    images: np.ndarray  # some validation images, uint8 (n, height, width, 3)
    probabilities: np.ndarray  # the answers expected for them, (n, classes)
    validation: dict[str, np.ndarray]  # all validation images: `images`, `labels` and `ids`, uint64 (n,)
    training_ids: np.ndarray  # of the images that it was trained on, uint64 (n,)
    other_images: bool  # whether it started from a registered version, which may have been trained on others
    classes: list[str]
    serving: packaging.Serving
    tags: dict[str, str]  # variant, seed, model_digest, data_digest, split_digest
    metric: str  # by which models are compared
    validation_score: float  # its value of the metric
    mean_validation_score: float  # of its variant's seeds
    seeds: int
    margin_metric: str  # accuracy or balanced accuracy, which must exceed chance by promotion.margin
    margin_score: float
    validation_accuracy: float
    test_accuracy: float

    @property
    def digest(self) -> str:
        """SHA-256 of its file, by which the registry knows it."""
        return self.tags["model_digest"]

    @property
    def identity(self) -> dict[str, str]:
        """The tags that identify its version: the digests of the model and of how it is served."""
        return {
            "model_digest": self.digest,
            "serving_digest": packaging.digest(self.serving),
        }

    @property
    def model_name(self) -> str:
        """VARIANT-SEED, the name of its model in MLflow."""
        return f"{self.tags['variant']}-{self.tags['seed']}"

    @property
    def merit(self) -> str:
        """Why it is the candidate."""
        best = f"{extreme(self.metric)} {self.measure}, {self.mean_validation_score:.4f}"
        return f"{self.tags['variant']} has the {best}"

    @property
    def measure(self) -> str:
        """What `mean_validation_score` is, in words."""
        what = f"validation {in_words(self.metric)}"
        return what if self.seeds == 1 else f"mean {what} of {self.seeds} seeds"

    def described(self) -> dict[str, str]:
        """The tags of its version that `Standing` reads when another candidate comes."""
        known = {} if self.other_images else {"training_ids": digest_of(self.training_ids.tolist())}
        return (
            self.tags
            | known
            | {
                "metric": self.metric,
                "validation_score": f"{self.validation_score:.6f}",
                "mean_validation_score": f"{self.mean_validation_score:.6f}",
                "validation_accuracy": f"{self.validation_accuracy:.6f}",
                "test_accuracy": f"{self.test_accuracy:.6f}",
                "seeds": str(self.seeds),
            }
        )


class Standing(BaseModel, frozen=True):
    """The standing champion as the tags of its version describe it; invalid tags raise ValidationError."""

    variant: str
    seed: int
    metric: str = "accuracy"
    validation_score: FiniteFloat = Field(validation_alias=SCORE)
    # None: promoted before it was recorded
    mean_validation_score: FiniteFloat | None = Field(default=None, validation_alias=MEAN_SCORE)
    seeds: int = 1
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    model_digest: str
    split_digest: str
    data_digest: str | None = None
    training_ids: str | None = None  # the digest of the ids of its training images; None likewise


class IncomparableError(Exception):
    """Why the champion cannot be scored on a candidate's validation images."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and its reason."""

    accepted: bool
    reason: str


def judge(
    candidate: Candidate,
    standing: Standing | None,
    past: str | None,
    margin: float,
    force: bool,
    scored: Callable[[Standing], Standing],
) -> Verdict:
    """Decide whether a candidate replaces the champion, which is another model.

    Its accuracy, or balanced accuracy if another metric than accuracy chooses, must be at least `margin`
    above chance, and its metric better than the champion's on the same validation images. If the champion has
    another split or metric, `scored` scores it or raises IncomparableError. Nor may the candidate have a
    `past`, a line that says that it was champion before or that its version was deleted: only a person makes
    such a model champion again. `force` skips all but the first.
    """
    if not math.isfinite(candidate.validation_score):
        return Verdict(False, f"its validation {in_words(candidate.metric)} is {candidate.validation_score}")
    if candidate.margin_score < (least := 1 / len(candidate.classes) + margin):
        what = f"validation {in_words(candidate.margin_metric)} {candidate.margin_score:.4f}"
        return Verdict(False, f"{what} is below {least:.4f}, chance plus promotion.margin {margin}")
    if standing is None and past is None:
        return Verdict(True, f"{candidate.merit}; there was no champion before it")
    if force:
        return Verdict(True, f"{candidate.merit}; promoted by FORCE=1, without a comparison")
    if past is not None:
        return Verdict(False, past)
    assert standing is not None
    where = ""
    if (standing.split_digest, standing.metric) != (candidate.tags["split_digest"], candidate.metric):
        where = " on the same images"
        try:
            standing = scored(standing)
        except IncomparableError as error:
            return Verdict(
                False,
                f"the champion cannot be scored on these validation images: {error}; "
                "`make promote FORCE=1` promotes the chosen model anyway",
            )
    score, other = candidate.mean_validation_score, comparable(candidate, standing)
    if merit(candidate.metric, score) <= merit(candidate.metric, other):
        than = f"than the champion's {other:.4f}{where}"
        return Verdict(False, f"{candidate.measure} {score:.4f} is not better {than}")
    return Verdict(True, f"{candidate.merit}; the champion before it had {other:.4f}{where}")


def comparable(candidate: Candidate, standing: Standing) -> float:
    """The champion's score that is compared with the mean over the candidate's seeds.

    The mean too if both have several seeds, and otherwise the model's own. The candidate's best seed is never
    compared, since the best of several is partly luck.
    """
    mean = standing.mean_validation_score
    several = candidate.seeds > 1 and standing.seeds > 1
    return mean if several and mean is not None else standing.validation_score
