"""The registered model and its two aliases: `champion`, which is served, and `previous`.

The tags of a version say why it was chosen. All decisions rest on validation data.
"""

import os
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from pipeline.stages.promote import serving_check
from pipeline.stages.promote.gate import Candidate, Standing, Verdict, judge
from pipeline.stages.promote.registration import is_version_of, register
from pipeline.support.errors import PipelineError
from pipeline.support.locks import locked_on_this_machine

CHAMPION, PREVIOUS = "champion", "previous"
IDENTITY = ("model_digest", "serving_digest")  # the tags by which a version is known


@dataclass(frozen=True)
class Outcome:
    """The gate's verdict, the champion that it compared the candidate with, and what was done, in lines."""

    verdict: Verdict
    standing: Standing | None
    lines: list[str]


def promote(candidate: Candidate, margin: float, force: bool = False) -> Outcome:
    """Make the candidate champion if it passes the gate.

    The same model again changes nothing, unless it is served in another way, which is a new version.
    The reason of a refusal is written on the candidate's run, that of a promotion on the new version; the
    old champion becomes `previous`. Raises PipelineError before an alias moves if the served model does not
    answer as the candidate did. One promotion at a time on a machine; for several machines see
    `repair`.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    name = candidate.registered_name
    with one_at_a_time(name):
        champion = version_at(name, CHAMPION)
        if champion is not None and is_version_of(champion, candidate):
            stays = f"{name}: version {champion.version} stays champion: it is the same model"
            return Outcome(Verdict(True, candidate.merit), None, [stays])
        standing, lines = described_by(champion)
        verdict = judge(candidate, standing, margin, force)
        if not verdict.accepted:
            tag_run(candidate, f"refused: {verdict.reason}")
            lines.append(f"{name}: not promoted: {verdict.reason}")
        elif candidate.run_id is None:
            lines.append(f"{candidate.model_name}: MLflow has no complete run of it: run `make sync`")
        else:
            reason = f"{verdict.reason}; {verdict.comparison}"
            number = make_champion(candidate, champion, reason)
            tag_run(candidate, f"version {number}: {reason}")
            lines.append(f"{name}: version {number} is champion: {reason}")
        return Outcome(verdict, standing, lines)


def described_by(champion: ModelVersion | None) -> tuple[Standing | None, list[str]]:
    """The champion as its tags describe it; None, and a line that says so, if they are missing or invalid."""
    if champion is None:
        return None, []
    try:
        return Standing.model_validate(champion.tags), []
    except ValidationError as error:
        wrong = ", ".join(sorted({str(detail["loc"][0]) for detail in error.errors()}))
        version = f"{champion.name}: version {champion.version}, the champion,"
        return None, [f"{version} counts as none: its tags are missing or invalid: {wrong}"]


def make_champion(candidate: Candidate, champion: ModelVersion | None, reason: str) -> str:
    """Register the candidate if it is not a version yet, check its answers and move the aliases to it."""
    client, name = mlflow.MlflowClient(), candidate.registered_name
    before = replaced(name, champion)  # now, since another machine may promote during the trial
    with serving_check.new_process() as answers:
        known = (str(version.version) for version in versions(name) if is_version_of(version, candidate))
        number = next(known, None) or register(candidate)
        serving_check.check(answers, f"models:/{name}/{number}", candidate.images, candidate.probabilities)
    for key, value in describe(candidate, before, reason).items():
        client.set_model_version_tag(name, number, key, value)
    if champion is not None:
        set_alias(name, PREVIOUS, champion.version)
    set_alias(name, CHAMPION, number)
    return number


def set_alias(name: str, alias: str, version: str) -> None:
    """Give an alias to a version.

    MLflow (3.17) fails if another machine creates the alias at the same moment, so it is tried again.
    """
    collided = retry_if_exception(lambda error: getattr(error, "error_code", "") == "BAD_REQUEST")
    for attempt in Retrying(retry=collided, stop=stop_after_attempt(3), reraise=True):
        with attempt:
            mlflow.MlflowClient().set_registered_model_alias(name, alias, version)


def replaced(name: str, champion: ModelVersion | None) -> str:
    """The id of the promotion that made the champion; without a champion, the version promoted last."""
    if champion is not None:
        return champion.tags.get("promotion_id", f"version {champion.version}")
    earlier = [v.version for v in versions(name) if "promotion_id" in v.tags]
    return f"none since version {earlier[0]}" if earlier else "none"


def describe(candidate: Candidate, before: str, reason: str) -> dict[str, str]:
    """The tags of a new champion, which replaces what `before` names."""
    return (
        candidate.tags
        | candidate.identity
        | {
            "validation_accuracy": f"{candidate.validation_accuracy:.6f}",
            "test_accuracy": f"{candidate.test_accuracy:.6f}",
            "mean_validation_accuracy": f"{candidate.mean_validation_accuracy:.6f}",
            "seeds": str(candidate.seeds),
            "promotion": reason,
            "promotion_id": uuid.uuid4().hex,
            "replaces": before,
        }
    )


def tag_run(candidate: Candidate, promotion: str) -> None:
    """Write what became of a candidate on its run."""
    if candidate.run_id is not None:
        mlflow.MlflowClient().set_tag(candidate.run_id, "promotion", promotion)


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
        client = mlflow.MlflowClient()
        client.set_model_version_tag(name, previous.version, "promotion_id", uuid.uuid4().hex)
        set_alias(name, CHAMPION, previous.version)
        set_alias(name, PREVIOUS, champion.version)
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


def versions(name: str) -> list[ModelVersion]:
    """All versions of a registered model, the newest first."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version), reverse=True)
