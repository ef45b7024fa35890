"""The registered model and its two aliases: `champion`, which is served, and `previous`.

A version carries as tags what it was chosen by. All decisions rest on validation data.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import serving
from pipeline.errors import PipelineError

CHAMPION, PREVIOUS = "champion", "previous"


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


def promote(candidate: Candidate, margin: float, force: bool = False) -> str:
    """Make the candidate champion where it passes the gate, and say in one line what was done and why.

    The same model again changes nothing, unless it is wrapped for serving in another way, which is a new
    version. A refusal's reason is written on the candidate's run, a promotion's on the new version; the
    old champion becomes `previous`. `force` passes over the comparison with the standing champion, never
    over the rest of the gate.
    """
    name, identity = candidate.registered_name, candidate.identity
    standing = version_at(name, CHAMPION)
    if standing is not None and identity.items() <= standing.tags.items():
        return f"{name}: version {standing.version} stays champion: it is the same model"
    reason = refusal(candidate, standing, margin, force)
    client = mlflow.MlflowClient()
    if reason:
        client.set_tag(candidate.run_id, "promotion", f"refused: {reason}")
        return f"{name}: not promoted: {reason}"

    reason = why(candidate, standing, force)
    number = known_version(name, identity) or register(candidate)
    if (status := client.get_model_version(name, number).status) != "READY":
        raise PipelineError(f"{name}: version {number} is {status}, not READY, so it was not promoted")
    told = {
        "validation_accuracy": f"{candidate.validation_accuracy:.6f}",
        "test_accuracy": f"{candidate.test_accuracy:.6f}",
        "validation_accuracy_change": change_from(standing, candidate),
        "promotion": reason,
    }
    for key, value in (candidate.tags | identity | told).items():
        client.set_model_version_tag(name, number, key, value)
    if standing is not None:
        client.set_registered_model_alias(name, PREVIOUS, standing.version)
    client.set_registered_model_alias(name, CHAMPION, number)
    client.set_tag(candidate.run_id, "promotion", f"version {number}: {reason}")
    return f"{name}: version {number} is champion: {reason}"


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


def rollback(name: str) -> str:
    """Swap champion and previous; PipelineError where there are not both."""
    champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
    if champion is None or previous is None:
        missing = CHAMPION if champion is None else PREVIOUS
        raise PipelineError(f"registered model {name!r} has no version with the alias {missing!r}")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, CHAMPION, previous.version)
    client.set_registered_model_alias(name, PREVIOUS, champion.version)
    return f"{name}: version {previous.version} is champion again, version {champion.version} is previous"


def version_at(name: str, alias: str) -> ModelVersion | None:
    """The version that an alias names, if there is one."""
    client = mlflow.MlflowClient()
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        # A server with users denies the permission to a model that is not there.
        if error.error_code == "PERMISSION_DENIED" and not client.search_registered_models(
            f"name = '{name}'"
        ):
            return None
        raise


def known_version(name: str, tags: dict[str, str]) -> str | None:
    """The newest version that carries all of these tags, if there is one."""
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    numbers = [int(v.version) for v in versions if tags.items() <= v.tags.items()]
    return str(max(numbers)) if numbers else None


def is_same_model(candidate: Candidate, version: ModelVersion) -> bool:
    """Whether a version holds the candidate's very model, however it is wrapped."""
    return version.tags.get("model_digest") == candidate.tags["model_digest"]


def register(candidate: Candidate) -> str:
    """Log the model, wrapped for serving, to its run, and register it; the new version's number.

    The run's status and end stay those of its training, even where this fails.
    """
    import pipeline.backend  # noqa: F401  MLflow runs the served model, which imports TensorFlow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    commit = mlflow.MlflowClient().get_run(candidate.run_id).data.tags.get("git_commit", "none")
    with resumed(candidate.run_id):
        logged = mlflow.pyfunc.log_model(
            name="served_model",
            registered_model_name=candidate.registered_name,
            **serving.described(candidate.model, candidate.classes, candidate.example, candidate.batch_limit),
            metadata={"classes": candidate.classes, "git_commit": commit} | candidate.tags,
        )
    return str(logged.registered_model_version)


@contextmanager
def resumed(run_id: str) -> Iterator[None]:
    """Make a run active for a while, and leave it with the status and the end that it had."""
    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        client.set_terminated(run_id, before.status, before.end_time)


def accuracy_of(version: ModelVersion) -> float:
    """The validation accuracy that a version was promoted with."""
    return float(version.tags["validation_accuracy"])
