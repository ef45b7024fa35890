"""The registered model and its two aliases: `champion`, which is served, and `previous`.

The tags of a version say why it was chosen. All decisions rest on validation data.
"""

import contextlib
import os
import uuid
from contextlib import AbstractContextManager

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipeline.champion import serving
from pipeline.champion.gate import Candidate, Verdict, judge
from pipeline.shared.errors import PipelineError
from pipeline.shared.lock import locked_on_this_machine

CHAMPION, PREVIOUS = "champion", "previous"
IDENTITY = ("model_digest", "serving_digest")  # the tags by which a version is known


def promote(candidate: Candidate, margin: float, force: bool = False) -> str:
    """Make the candidate champion if it passes the gate; returns what was done and why, in one line.

    The same model again changes nothing, unless it is served in another way, which is a new version.
    The reason of a refusal is written on the candidate's run, that of a promotion on the new version; the
    old champion becomes `previous`. One promotion at a time on a machine; for several machines see
    `pipeline.champion.repair`.
    """
    name, identity = candidate.registered_name, candidate.identity
    with one_at_a_time(name):
        champion = version_at(name, CHAMPION)
        if champion is not None and identity.items() <= champion.tags.items():
            return f"{name}: version {champion.version} stays champion: it is the same model"
        verdict = judge(candidate, champion, margin, force)
        client = mlflow.MlflowClient()
        if not verdict.accepted:
            client.set_tag(candidate.run_id, "promotion", f"refused: {verdict.reason}")
            return f"{name}: not promoted: {verdict.reason}"
        number = known_version(name, identity) or register(candidate)
        if (status := client.get_model_version(name, number).status) != "READY":
            raise PipelineError(f"{name}: version {number} is {status}, not READY, so it was not promoted")
        for key, value in describe(candidate, champion, verdict).items():
            client.set_model_version_tag(name, number, key, value)
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, number)
        client.set_tag(candidate.run_id, "promotion", f"version {number}: {verdict.reason}")
        return f"{name}: version {number} is champion: {verdict.reason}"


def describe(candidate: Candidate, champion: ModelVersion | None, verdict: Verdict) -> dict[str, str]:
    """The tags of a new champion. `replaces` holds the id of the promotion that made the old one champion."""
    before = "none" if champion is None else f"version {champion.version}"
    return (
        candidate.tags
        | candidate.identity
        | {
            "validation_accuracy": f"{candidate.validation_accuracy:.6f}",
            "test_accuracy": f"{candidate.test_accuracy:.6f}",
            "validation_accuracy_change": verdict.change,
            "promotion": verdict.reason,
            "promotion_id": uuid.uuid4().hex,
            "replaces": champion.tags.get("promotion_id", before) if champion else before,
        }
    )


def one_at_a_time(name: str) -> AbstractContextManager[None]:
    """Hold a lock against other promotions of this user on this machine."""
    return locked_on_this_machine(f"{mlflow.get_tracking_uri()} {name}")


def rollback(name: str) -> str:
    """Swap champion and previous. Raises PipelineError unless there are both."""
    champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
    if champion is None or previous is None:
        missing = CHAMPION if champion is None else PREVIOUS
        raise PipelineError(f"registered model {name!r} has no version with the alias {missing!r}")
    client = mlflow.MlflowClient()
    client.set_model_version_tag(name, previous.version, "promotion_id", uuid.uuid4().hex)
    client.set_registered_model_alias(name, CHAMPION, previous.version)
    client.set_registered_model_alias(name, PREVIOUS, champion.version)
    return f"{name}: version {previous.version} is champion again, version {champion.version} is previous"


def version_at(name: str, alias: str) -> ModelVersion | None:
    """The version with an alias, if there is one."""
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


def register(candidate: Candidate) -> str:
    """Log the model, wrapped for serving, to its run, and register it; the new version's number.

    A version carries its identity from the start, so one that was registered before a crash is found again.
    """
    import pipeline.learning.backend  # noqa: F401  MLflow runs the served model, which imports TensorFlow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    client, name = mlflow.MlflowClient(), candidate.registered_name
    run = client.get_run(candidate.run_id)
    commit = run.data.tags.get("git_commit", "none")
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    logged = Model.log(
        artifact_path=None,
        name="served_model",
        flavor=mlflow.pyfunc,
        run_id=candidate.run_id,  # which keeps its status and its end
        **serving.described(candidate.model, candidate.classes, candidate.example, candidate.batch_limit),
        metadata={"classes": candidate.classes, "git_commit": commit} | candidate.tags,
    )
    with contextlib.suppress(MlflowException):  # it exists already
        client.create_registered_model(name)
    version = client.create_model_version(
        name, logged.model_uri, candidate.run_id, tags=candidate.identity, model_id=logged.model_id
    )
    return str(version.version)
