"""The gate: whether a candidate may become champion, and why. All decisions rest on validation data."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow.entities.model_registry import ModelVersion

from pipeline.champion import serving


@dataclass(frozen=True)
class Candidate:
    """A trained model that may become champion, and what it was scored on."""

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
        """The tags that tell its version: the model's digest, and that of how it is wrapped for serving."""
        return {
            "model_digest": self.tags["model_digest"],
            "serving_digest": serving.digest(self.batch_limit),
        }


def refusal(candidate: Candidate, standing: ModelVersion | None, margin: float, force: bool) -> str:
    """Why the gate refuses a candidate; empty where it lets it pass."""
    accuracy, chance = candidate.validation_accuracy, 1 / len(candidate.classes)
    if not math.isfinite(accuracy):
        return f"its validation accuracy is {accuracy}"
    if accuracy < chance + margin:
        return (
            f"validation accuracy {accuracy:.4f} is under {chance + margin:.4f}, which is chance and "
            f"promotion.margin {margin}"
        )
    if standing is None or force or is_same_model(candidate, standing):
        return ""
    if standing.tags.get("split_digest") != candidate.tags["split_digest"]:
        return (
            f"version {standing.version}, the champion, was scored on another split, so the two do not "
            "compare; `make promote FORCE=1` promotes all the same"
        )
    if accuracy <= accuracy_of(standing):
        return (
            f"validation accuracy {accuracy:.4f} is no better than the {accuracy_of(standing):.4f} of "
            f"version {standing.version}, the champion"
        )
    return ""


def why(candidate: Candidate, standing: ModelVersion | None, force: bool) -> str:
    """The reason of a promotion, as it is written on the version."""
    best = f"{candidate.tags['variant']} has the highest validation accuracy, "
    best += f"{candidate.validation_accuracy:.4f}"
    if standing is None:
        return f"{best}; there was no champion before it"
    if is_same_model(candidate, standing):
        return f"the model of version {standing.version}, served in another way"
    if force:
        return f"{best}; forced, in place of version {standing.version}"
    return f"{best}; version {standing.version} had {accuracy_of(standing):.4f}"


def change_from(standing: ModelVersion | None, candidate: Candidate) -> str:
    """By how much a candidate is better than the standing champion, where the two compare."""
    if standing is None:
        return "none: the first champion"
    if standing.tags.get("split_digest") != candidate.tags["split_digest"]:
        return f"none: version {standing.version} was scored on another split"
    return f"{candidate.validation_accuracy - accuracy_of(standing):+.6f}"


def is_same_model(candidate: Candidate, version: ModelVersion) -> bool:
    """Whether a version holds the candidate's very model, however it is wrapped."""
    return version.tags.get("model_digest") == candidate.tags["model_digest"]


def accuracy_of(version: ModelVersion) -> float:
    """The validation accuracy that a version was promoted with."""
    return float(version.tags["validation_accuracy"])
