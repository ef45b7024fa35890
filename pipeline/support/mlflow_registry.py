"""A registered model of MLflow: its versions, its two aliases and its history.

The version with the alias `champion` is served; `previous` was champion before it. The history is kept as
tags of the registered model, since MLflow shows nothing of a deleted version. A model is known by the SHA-256
of its file, which all its versions have as a tag.
"""

from contextlib import AbstractContextManager
from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from pipeline.support.errors import PipelineError
from pipeline.support.locks import locked_on_this_machine

CHAMPION, PREVIOUS = "champion", "previous"  # aliases
DIGEST = "model_digest"  # the tag of a version that names its model
# The tags of the registered model, each with a model's digest at its end.
HISTORY, REGISTERED = "champion/", "registered/"
NOTE = (
    "Classifies images. The version with the alias `champion` is served, `previous` was champion before it. "
    "The description of a version comes from its model card. The tags say which models were champion."
)


class Entry(BaseModel, frozen=True):
    """When a model became champion for the last time, and why."""

    number: int  # counts all entries ever written
    version: str
    since: str  # UTC
    why: str


def registered_model(name: str) -> RegisteredModel | None:
    """The registered model of this name, if there is one.

    By a search, since a server with users denies the permission to a model that does not exist.
    """
    return next(iter(mlflow.MlflowClient().search_registered_models(f"name = '{name}'")), None)


def version_at(name: str, alias: str) -> ModelVersion | None:
    """The version with an alias, if there is one."""
    model = registered_model(name)
    if model is None or alias not in model.aliases:
        return None
    return mlflow.MlflowClient().get_model_version(name, str(model.aliases[alias]))


def versions(name: str, digest: str | None = None) -> list[ModelVersion]:
    """All versions of a registered model, the newest first; with a digest, those of this model."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    these = [version for version in found if digest is None or version.tags.get(DIGEST) == digest]
    return sorted(these, key=lambda version: int(version.version), reverse=True)


def history(name: str) -> dict[str, Entry]:
    """The models that became champion, by their digests, the last one last. Damaged tags count as none."""
    found = {}
    for key, value in _tags(name).items():
        if key.startswith(HISTORY):
            try:
                found[key.removeprefix(HISTORY)] = Entry.model_validate_json(value)
            except ValidationError:
                continue
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def registration(name: str, digest: str) -> str | None:
    """The version that a model has, or had before it was deleted."""
    return _tags(name).get(REGISTERED + digest)


def note_registration(name: str, digest: str, version: str) -> None:
    """Remember the version of a model, in case it is deleted."""
    mlflow.MlflowClient().set_registered_model_tag(name, REGISTERED + digest, version)


def note_champion(champion: ModelVersion, why: str) -> None:
    """Write the last entry of the history. A version without a digest is not the pipeline's, and has none."""
    if digest := champion.tags.get(DIGEST):
        number = max((entry.number for entry in history(champion.name).values()), default=0) + 1
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        entry = Entry(number=number, version=str(champion.version), since=since, why=why)
        client = mlflow.MlflowClient()
        client.set_registered_model_tag(champion.name, HISTORY + digest, entry.model_dump_json())


def complete_history(champion: ModelVersion) -> None:
    """Add the champion to the history if it is not the last entry.

    A crash left it out, or its alias was set by hand.
    """
    known, digest = history(champion.name), champion.tags.get(DIGEST)
    if next(reversed(known), None) != digest:
        by_hand = "its alias was set by hand"
        why = by_hand if digest in known else champion.tags.get("promotion", by_hand)
        note_champion(champion, why)


def set_alias(name: str, alias: str, version: str) -> None:
    """Give an alias to a version.

    MLflow (3.17) fails if another machine creates the alias at the same moment, so it is tried again.
    """
    collided = retry_if_exception(lambda error: getattr(error, "error_code", "") == "BAD_REQUEST")
    for attempt in Retrying(retry=collided, stop=stop_after_attempt(3), reraise=True):
        with attempt:
            mlflow.MlflowClient().set_registered_model_alias(name, alias, version)


def one_at_a_time(name: str) -> AbstractContextManager[None]:
    """Hold a lock against other promotions and rollbacks of this user on this machine."""
    return locked_on_this_machine(f"{mlflow.get_tracking_uri()} {name}")


def rollback(name: str) -> str:
    """Swap champion and previous. Raises PipelineError unless there are both."""
    with one_at_a_time(name):
        champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
        if champion is None or previous is None:
            missing = CHAMPION if champion is None else PREVIOUS
            raise PipelineError(f"registered model {name!r} has no version with the alias {missing!r}")
        complete_history(champion)
        set_alias(name, CHAMPION, previous.version)
        set_alias(name, PREVIOUS, champion.version)
        note_champion(previous, f"rolled back from version {champion.version}")
    return f"{name}: version {previous.version} is champion again, version {champion.version} is previous"


def _tags(name: str) -> dict[str, str]:
    model = registered_model(name)
    return dict(model.tags) if model else {}
