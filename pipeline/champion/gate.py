"""The gate: whether a candidate may become champion, and why. All decisions rest on validation data."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow.entities.model_registry import ModelVersion

from pipeline.champion import serving


@dataclass(frozen=True)
class Candidate:
    """A trained model that may become champion, and the data that it was scored on."""

    registered_name: str
    run_id: str
    model: Path
    example: np.ndarray  # one image, uint8 (32, 32, 3)
    classes: list[str]
    batch_limit: int  # images in one request
    tags: dict[str, str]  # variant, seed, model_digest, data_digest, split_digest
    validation_accuracy: float
    test_accuracy: float

    @property
    def identity(self) -> dict[str, str]:
        """The tags that identify its version: the digests of the model and of how it is served."""
        return {
            "model_digest": self.tags["model_digest"],
            "serving_digest": serving.digest(self.batch_limit),
        }


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, its reason, and how the validation accuracy changes from the champion's."""

    accepted: bool
    reason: str
    change: str


def judge(candidate: Candidate, champion: ModelVersion | None, margin: float, force: bool) -> Verdict:
    """Decide whether a candidate replaces the champion.

    It must be at least `margin` above chance and better than the champion on the same split. `force`
    skips the comparison with the champion, as does another way of serving the champion's own model.
    """
    accuracy, least = candidate.validation_accuracy, 1 / len(candidate.classes) + margin
    best = f"{candidate.tags['variant']} has the highest validation accuracy, {accuracy:.4f}"
    change = change_from(champion, candidate)
    if not math.isfinite(accuracy):
        return Verdict(False, f"its validation accuracy is {accuracy}", change)
    if accuracy < least:
        reason = f"validation accuracy {accuracy:.4f} is below {least:.4f}, chance plus promotion.margin"
        return Verdict(False, f"{reason} {margin}", change)
    if champion is None:
        return Verdict(True, f"{best}; there was no champion before it", change)
    version = f"version {champion.version}"
    if champion.tags.get("model_digest") == candidate.tags["model_digest"]:
        return Verdict(True, f"the model of {version}, served in another way", change)
    if force:
        return Verdict(True, f"{best}; forced, in place of {version}", change)
    if not is_comparable(champion, candidate):
        reason = f"{version}, the champion, was scored on another split, so the two cannot be compared"
        return Verdict(False, f"{reason}; `make promote FORCE=1` promotes it anyway", change)
    if accuracy <= accuracy_of(champion):
        reason = f"validation accuracy {accuracy:.4f} is not better than the {accuracy_of(champion):.4f} of"
        return Verdict(False, f"{reason} {version}, the champion", change)
    return Verdict(True, f"{best}; {version} had {accuracy_of(champion):.4f}", change)


def change_from(champion: ModelVersion | None, candidate: Candidate) -> str:
    """The change in validation accuracy, if the champion was scored on the same split."""
    if champion is None:
        return "none: the first champion"
    if not is_comparable(champion, candidate):
        return f"none: version {champion.version} was scored on another split"
    return f"{candidate.validation_accuracy - accuracy_of(champion):+.6f}"


def is_comparable(champion: ModelVersion, candidate: Candidate) -> bool:
    """Whether both were scored on the same split."""
    return champion.tags.get("split_digest") == candidate.tags["split_digest"]


def accuracy_of(version: ModelVersion) -> float:
    """The validation accuracy that a version was promoted with."""
    return float(version.tags["validation_accuracy"])
