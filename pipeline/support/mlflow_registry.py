"""A registered model of MLflow: its versions, its two aliases and its history.

The version with the alias `champion` is served; `previous` was champion before it. mlflow_aliases.py moves
them. The history is kept as tags of the registered model, since MLflow shows nothing of a deleted version. A
model is known by the SHA-256 of its file, which all its versions have as a tag.
"""

from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from pydantic import BaseModel, ValidationError

CHAMPION, PREVIOUS = "champion", "previous"  # aliases
DIGEST = "model_digest"  # the tag of a version that names its model
MODEL = "artifacts/model.keras"  # among the files of a version
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


def _tags(name: str) -> dict[str, str]:
    model = registered_model(name)
    return dict(model.tags) if model else {}
