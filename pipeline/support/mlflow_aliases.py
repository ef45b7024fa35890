"""Moves the two aliases of a registered model, so that an interruption leaves nothing half done.

MLflow moves one alias at a time. So a tag of the registered model says first where both are and where they
go. Each promotion, rollback and `sync` begins with `settle`, which completes from it what was interrupted.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import mlflow
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from pipeline.support import mlflow_store
from pipeline.support.errors import PipelineError
from pipeline.support.locks import locked_on_this_machine
from pipeline.support.mlflow_registry import (
    CHAMPION,
    DIGEST,
    PREVIOUS,
    complete_history,
    history,
    note_champion,
    registered_model,
    version_at,
    versions,
)

MOVE = "move"  # the tag of the registered model


class Aliases(BaseModel, frozen=True):
    """The versions at the two aliases."""

    champion: str | None
    previous: str | None


class Move(BaseModel, frozen=True):
    """A promotion or a rollback: where the aliases are before and after it, and the reason."""

    before: Aliases
    after: Aliases
    why: str


def aliases(name: str) -> Aliases:
    """Where the aliases of a registered model are."""
    model = registered_model(name)
    found = {alias: str(version) for alias, version in model.aliases.items()} if model else {}
    return Aliases(champion=found.get(CHAMPION), previous=found.get(PREVIOUS))


def make_champion(version: ModelVersion, why: str) -> None:
    """Make a version champion, and the champion before it `previous`, and write the history.

    There is a champion at every moment.
    """
    before = aliases(version.name)
    after = Aliases(champion=str(version.version), previous=before.champion or before.previous)
    move = Move(before=before, after=after, why=why)
    mlflow.MlflowClient().set_registered_model_tag(version.name, MOVE, move.model_dump_json())
    _complete(version.name, move)


def is_interrupted(name: str) -> bool:
    """Whether a promotion or rollback was interrupted, or is running."""
    model = registered_model(name)
    return model is not None and MOVE in model.tags


def settle(name: str) -> list[str]:
    """Complete a promotion or rollback that was interrupted. Returns what was done, in lines.

    It is forgotten if no alias had moved, or if a person moved one since. If both aliases are at one version,
    `previous` moves to the champion before it, if there is one left.
    """
    model, now, lines = registered_model(name), aliases(name), []
    if model and MOVE in model.tags:
        move = _parsed(model.tags[MOVE])
        halfway = move and Aliases(champion=move.after.champion, previous=move.before.previous)
        if move and now in (halfway, move.after):
            _complete(name, move)
            now = aliases(name)
            lines.append(f"{name}: version {now.champion} is champion, as before an interruption: {move.why}")
        else:
            mlflow.MlflowClient().delete_registered_model_tag(name, MOVE)
    if now.champion and now.champion == now.previous:
        lines.append(_mend_previous(name, now.champion))
    return lines


def rollback(name: str, check: Callable[[str], object]) -> list[str]:
    """Swap champion and previous, if `check` of the previous one's URI raises nothing. Returns lines.

    Raises PipelineError unless there are both.
    """
    with one_at_a_time(name):
        lines = settle(name)
        champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
        if champion is None or previous is None:
            missing = "champion" if champion is None else "earlier champion to return to"
            raise PipelineError(f"{name}: there is no {missing}")
        check(f"models:/{name}@{PREVIOUS}")
        complete_history(champion)
        make_champion(previous, f"rolled back from version {champion.version}")
    back = f"version {previous.version} is champion again, in place of version {champion.version}; "
    return [*lines, f"{name}: {back}`make rollback` undoes this"]


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
    return locked_on_this_machine(f"{mlflow_store.same_store(mlflow.get_registry_uri())} {name}")


def _complete(name: str, move: Move) -> None:
    """Do what is left of a move."""
    known = {str(version.version): version for version in versions(name)}
    for alias, number in ((CHAMPION, move.after.champion), (PREVIOUS, move.after.previous)):
        if number in known:  # nobody deleted it meanwhile
            set_alias(name, alias, number)
    champion = known[str(move.after.champion)]
    last, entry = next(reversed(history(name).items()), (None, None))
    if entry is None or (last, entry.version) != (champion.tags.get(DIGEST), str(champion.version)):
        note_champion(champion, move.why)
    mlflow.MlflowClient().delete_registered_model_tag(name, MOVE)


def _parsed(text: str) -> Move | None:
    """The move that a tag describes; None if someone damaged it."""
    try:
        return Move.model_validate_json(text)
    except ValidationError:
        return None


def _mend_previous(name: str, champion: str) -> str:
    """Move `previous` away from the champion, to the one before it. Returns what was done, in a line."""
    client = mlflow.MlflowClient()
    digest = client.get_model_version(name, champion).tags.get(DIGEST)
    for other, entry in reversed(history(name).items()):
        known = [str(version.version) for version in versions(name, other)]
        if other != digest and known:
            number = entry.version if entry.version in known else known[0]
            set_alias(name, PREVIOUS, number)
            return f"{name}: version {number} is previous, since version {champion} was also champion"
    client.delete_registered_model_alias(name, PREVIOUS)
    return f"{name}: no version is previous, since version {champion} was also champion"
