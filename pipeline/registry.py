"""The registered model and its two aliases: `champion`, which is served, and `previous`.

A version carries as tags what it was chosen by. All decisions rest on validation data.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Map, Schema

from pipeline.errors import PipelineError

CHAMPION, PREVIOUS = "champion", "previous"
SERVED_MODEL = Path(__file__).with_name("served_model.py")


@dataclass(frozen=True)
class Candidate:
    """A trained model that may become champion, and what it was scored on."""

    registered_name: str
    run_id: str
    model: Path
    example: np.ndarray  # one image, uint8 (32, 32, 3)
    classes: list[str]
    tags: dict[str, str]  # variant, seed, model_digest, data_digest, split_digest
    validation_accuracy: float
    test_accuracy: float


def promote(candidate: Candidate, margin: float, force: bool = False) -> str:
    """Make the candidate champion where it passes the gate, and say in one line what was done and why.

    The same model again changes nothing. A refusal's reason is written on the candidate's run, a
    promotion's on the new version; the old champion becomes `previous`. `force` passes over the
    comparison with the standing champion, never over the rest of the gate.
    """
    name, digest = candidate.registered_name, candidate.tags["model_digest"]
    standing = version_at(name, CHAMPION)
    if standing is not None and standing.tags.get("model_digest") == digest:
        return f"{name}: version {standing.version} stays champion: it is the same model"
    reason = refusal(candidate, standing, margin, force)
    client = mlflow.MlflowClient()
    if reason:
        client.set_tag(candidate.run_id, "promotion", f"refused: {reason}")
        return f"{name}: not promoted: {reason}"

    reason = why(candidate, standing, force)
    number = known_version(name, digest) or register(candidate)
    if (status := client.get_model_version(name, number).status) != "READY":
        raise PipelineError(f"{name}: version {number} is {status}, not READY, so it was not promoted")
    told = {
        "validation_accuracy": f"{candidate.validation_accuracy:.6f}",
        "test_accuracy": f"{candidate.test_accuracy:.6f}",
        "validation_accuracy_change": change_from(standing, candidate),
        "promotion": reason,
    }
    for key, value in (candidate.tags | told).items():
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
    if standing is None or force:
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
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def known_version(name: str, model_digest: str) -> str | None:
    """The newest version that holds this very model, if there is one."""
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    numbers = [int(v.version) for v in versions if v.tags.get("model_digest") == model_digest]
    return str(max(numbers)) if numbers else None


def register(candidate: Candidate) -> str:
    """Log the model, wrapped for serving, to its run, and register it; the new version's number.

    The run's status and end stay those of its training, even where this fails.
    """
    import pipeline.backend  # noqa: F401  MLflow runs the served model, which imports TensorFlow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with resumed(candidate.run_id):
        logged = mlflow.pyfunc.log_model(
            name="served_model",
            python_model=str(SERVED_MODEL),
            artifacts={"model": str(candidate.model)},
            model_config={"classes": candidate.classes},
            signature=signature(),
            input_example=example_request(candidate.example),
            pip_requirements=[
                f"{package}=={installed(package)}"
                for package in ("mlflow", "tensorflow", "keras", "numpy", "pandas")
            ],
            metadata={"classes": candidate.classes} | candidate.tags,
            registered_model_name=candidate.registered_name,
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


def signature() -> ModelSignature:
    """What the served model takes and gives, a row an image."""
    return ModelSignature(
        inputs=Schema([ColSpec(Array(Array(Array(DataType.long))), "pixels")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "confidence"),
                ColSpec(Map(DataType.double), "probabilities"),
            ]
        ),
    )


def example_request(image: np.ndarray) -> pd.DataFrame:
    """One image, uint8 (32, 32, 3), as the served model takes it."""
    return pd.DataFrame({"pixels": [image.tolist()]})


def accuracy_of(version: ModelVersion) -> float:
    """The validation accuracy that a version was promoted with."""
    return float(version.tags["validation_accuracy"])
