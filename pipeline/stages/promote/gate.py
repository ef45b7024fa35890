"""The gate: whether a candidate may become champion, and why. All decisions rest on validation data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

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
    probabilities: np.ndarray  # what the model predicted for them, (n, classes)
    validation: dict[str, np.ndarray]  # all validation images: `images`, `labels` and `ids`, uint64 (n,)
    training_ids: np.ndarray  # of the images that it was trained on, uint64 (n,)
    classes: list[str]
    batch_limit: int  # images in one request
    fit: str  # how image files become squares
    views: str | None  # test-time views, over which `probabilities` are means
    tags: dict[str, str]  # variant, seed, model_digest, data_digest, split_digest
    validation_accuracy: float
    test_accuracy: float
    mean_validation_accuracy: float  # of its variant's seeds
    seeds: int

    @property
    def digest(self) -> str:
        """SHA-256 of its file, by which the registry knows it."""
        return self.tags["model_digest"]

    @property
    def identity(self) -> dict[str, str]:
        """The tags that identify its version: the digests of the model and of how it is served."""
        return {
            "model_digest": self.digest,
            "serving_digest": packaging.digest(self.batch_limit, self.views, self.fit),
        }

    @property
    def model_name(self) -> str:
        """VARIANT-SEED, the name of its model in MLflow."""
        return f"{self.tags['variant']}-{self.tags['seed']}"

    @property
    def merit(self) -> str:
        """Why it is the candidate."""
        what, accuracy = "validation accuracy", self.validation_accuracy
        if self.seeds > 1:
            what, accuracy = f"mean validation accuracy of {self.seeds} seeds", self.mean_validation_accuracy
        return f"{self.tags['variant']} has the highest {what}, {accuracy:.4f}"

    def described(self) -> dict[str, str]:
        """The tags of its version that `Standing` reads when another candidate comes."""
        return self.tags | {
            "validation_accuracy": f"{self.validation_accuracy:.6f}",
            "test_accuracy": f"{self.test_accuracy:.6f}",
            "mean_validation_accuracy": f"{self.mean_validation_accuracy:.6f}",
            "seeds": str(self.seeds),
            "training_ids": digest_of(self.training_ids.tolist()),
        }


class Standing(BaseModel, frozen=True):
    """The standing champion as the tags of its version describe it; invalid tags raise ValidationError."""

    variant: str
    seed: int
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    model_digest: str
    split_digest: str
    data_digest: str | None = None
    mean_validation_accuracy: Accuracy | None = None  # None: promoted before it was recorded
    seeds: int = 1
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

    It must be at least `margin` above chance, and better than the champion on the same validation images. If
    the champion has another split, `scored` scores it on them or raises IncomparableError. Nor may the
    candidate have a `past`, a line that says that it was champion before or that its version was deleted:
    only a person makes such a model champion again. `force` skips all but the first.
    """
    accuracy, least = candidate.validation_accuracy, 1 / len(candidate.classes) + margin
    if not math.isfinite(accuracy):
        return Verdict(False, f"its validation accuracy is {accuracy}")
    if accuracy < least:
        reason = (
            f"validation accuracy {accuracy:.4f} is below {least:.4f}, chance plus promotion.margin {margin}"
        )
        return Verdict(False, reason)
    if standing is None and past is None:
        return Verdict(True, f"{candidate.merit}; there was no champion before it")
    if force:
        return Verdict(True, f"{candidate.merit}; forced")
    if past is not None:
        return Verdict(False, past)
    assert standing is not None
    where = ""
    if standing.split_digest != candidate.tags["split_digest"]:
        where = " on the same images"
        try:
            standing = scored(standing)
        except IncomparableError as reason:
            return Verdict(
                False,
                f"the champion cannot be scored on these validation images: {reason}; "
                "`make promote FORCE=1` promotes the chosen model anyway",
            )
    what, accuracy, other = comparable(candidate, standing)
    if accuracy <= other:
        return Verdict(False, f"{what} {accuracy:.4f} is not better than the champion's {other:.4f}{where}")
    return Verdict(True, f"{candidate.merit}; the champion before it had {other:.4f}{where}")


def comparable(candidate: Candidate, standing: Standing) -> tuple[str, float, float]:
    """What is compared, and its two values.

    The candidate's is the mean over its seeds, since the best of several seeds is partly luck. The champion's
    is the mean too if both have several seeds, and otherwise the model's own.
    """
    if candidate.seeds == 1:
        return "validation accuracy", candidate.validation_accuracy, standing.validation_accuracy
    what, own = f"mean validation accuracy of {candidate.seeds} seeds", standing.validation_accuracy
    mean = standing.mean_validation_accuracy if standing.seeds > 1 else None
    return what, candidate.mean_validation_accuracy, own if mean is None else mean
