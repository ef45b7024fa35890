"""Makes a candidate champion of its registered model if the gate accepts it.

The tags of its version say why it was chosen; those of its run, what became of it.
"""

import mlflow
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from pipeline.stages.promote import champion_score, serving_check
from pipeline.stages.promote.gate import Candidate, Standing, judge
from pipeline.stages.promote.registration import is_intact, is_version_of, register
from pipeline.support import mlflow_aliases, mlflow_registry
from pipeline.support.mlflow_registry import CHAMPION, PREVIOUS


def promote(candidate: Candidate, margin: float, force: bool = False) -> list[str]:
    """Make the candidate champion if it passes the gate. Returns what was done, in lines.

    The old champion becomes `previous`. If the candidate is champion already, it is only registered again if
    it is served in another way or its files are gone. Raises PipelineError before an alias moves if the
    served model does not answer as the candidate did. One promotion at a time on a machine; of two machines
    that promote at once, the last one wins.
    """
    name = candidate.registered_name
    with mlflow_aliases.one_at_a_time(name):
        lines = mlflow_aliases.settle(name)
        champion = mlflow_registry.version_at(name, CHAMPION)
        if champion is not None:
            mlflow_registry.complete_history(champion)
            if champion.tags.get(mlflow_registry.DIGEST) == candidate.digest:
                return [*lines, refresh(candidate, champion, CHAMPION)]
            if not is_intact(champion):
                lines.append(f"{name}: version {champion.version}, the champion, is lost: run `make sync`")
        standing, complaints = described_by(champion)
        lines += complaints
        past = past_of(candidate) if champion else None

        def scored(standing: Standing) -> Standing:
            assert champion is not None  # or there would be none to score
            return champion_score.scored(champion, standing, candidate)

        verdict = judge(candidate, standing, past, margin, force, scored)
        if not verdict.accepted:
            tag_run(candidate, f"refused: {verdict.reason}")
            return [*lines, f"{name}: not promoted: {verdict.reason}"]
        if candidate.run_id is None:
            return [*lines, without_run(candidate)]
        version = servable_version(candidate, verdict.reason)
        mlflow_aliases.make_champion(version, verdict.reason)
        tag_run(candidate, f"version {version.version}: {verdict.reason}")
        return [*lines, f"{name}: version {version.version} is champion: {verdict.reason}"]


def refresh(candidate: Candidate, version: ModelVersion, alias: str) -> str:
    """Move an alias to a version of the same model that is intact and served as params.yaml asks.

    This is no promotion: the other alias and the history stay. Returns what was done, in a line.
    """
    name, old = candidate.registered_name, version.version
    if is_version_of(version, candidate):
        return f"{name}: version {old} stays {alias}: it is the same model"
    if candidate.run_id is None:
        return without_run(candidate)
    served_alike = candidate.identity.items() <= version.tags.items()
    change = "registered again, since its files are not intact" if served_alike else "served in another way"
    reason = f"the same model as version {old}, {change}"
    version = servable_version(candidate, reason)
    mlflow_aliases.set_alias(name, alias, version.version)
    tag_run(candidate, f"version {version.version}: {reason}")
    return f"{name}: version {version.version} is {alias}: {reason}"


def without_run(candidate: Candidate) -> str:
    """What to do for a candidate that MLflow has no run of."""
    name = candidate.model_name
    return f"{name}: MLflow has no complete run of it: run `make sync`, then `make promote`"


def past_of(candidate: Candidate) -> str | None:
    """A line if the candidate's model was champion or its version was deleted; None if it is new.

    The line names the version, and the command that makes the model champion again.
    """
    name, digest = candidate.registered_name, candidate.digest
    known, entry = mlflow_registry.versions(name, digest), mlflow_registry.history(name).get(digest)
    registered = entry.version if entry else mlflow_registry.registration(name, digest)
    previous = mlflow_registry.version_at(name, PREVIOUS)
    if previous is not None and previous.tags.get(mlflow_registry.DIGEST) == digest:
        return f"its version {previous.version} was champion before; `make rollback` makes it champion again"
    if registered and not known:
        return f"its version {registered} was deleted; `make promote FORCE=1` registers it again"
    if entry is not None:
        number = known[0].version
        return f"its version {number} was champion before; `make promote FORCE=1` makes it champion again"
    return None


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


def servable_version(candidate: Candidate, reason: str) -> ModelVersion:
    """A version of the candidate that answers as it should, with tags that say why it was chosen.

    The candidate is registered if it has none.
    """
    client, name = mlflow.MlflowClient(), candidate.registered_name
    with serving_check.new_process() as answers:
        known = mlflow_registry.versions(name, candidate.digest)
        intact = (str(version.version) for version in known if is_version_of(version, candidate))
        number = next(intact, None) or register(candidate)
        mlflow_registry.note_registration(name, candidate.digest, number)
        serving_check.check(answers, f"models:/{name}/{number}", candidate.images, candidate.probabilities)
    tags = candidate.identity | candidate.described() | {"promotion": reason}
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    return client.get_model_version(name, number)


def tag_run(candidate: Candidate, promotion: str) -> None:
    """Write what became of a candidate on its run."""
    if candidate.run_id is not None:
        mlflow.MlflowClient().set_tag(candidate.run_id, "promotion", promotion)
