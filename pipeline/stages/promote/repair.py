"""Finds promotions that two machines made at the same time, and puts them in order.

A registry sets an alias whatever it was before, so the last machine wins, however good its model is. Both
versions then say that they replaced the same champion, which cannot happen one after the other.
"""

from itertools import pairwise

import mlflow

from pipeline.stages.promote import registry
from pipeline.stages.promote.registry import CHAMPION, PREVIOUS, described_by, version_at, versions


def repair(name: str) -> list[str]:
    """Make the better of two such versions champion, and delete a second version of one model.

    Returns what was done, in lines. Versions that were scored on different splits are not compared.
    """
    with registry.one_at_a_time(name):
        return delete_doubles(name) + order_rivals(name)


def delete_doubles(name: str) -> list[str]:
    """Of versions with the same model, served alike, keep those with an alias, or else the first."""
    client, found = mlflow.MlflowClient(), versions(name)
    aliases = client.get_registered_model(name).aliases if found else {}
    aliased = {str(number) for number in aliases.values()}
    kept: dict[tuple[str | None, ...], str] = {}
    done = []
    for version in sorted(found, key=lambda v: (str(v.version) not in aliased, int(v.version))):
        number = str(version.version)
        identity = tuple(version.tags.get(key) for key in registry.IDENTITY)
        first = kept.setdefault(identity, number)
        if first != number and number not in aliased and None not in identity:
            client.delete_model_version(name, number)
            done.append(f"{name}: deleted version {number}: it duplicates version {first}")
    return done


def order_rivals(name: str) -> list[str]:
    """Of versions that replaced the very same champion, make the best champion, the next one previous."""
    champion = version_at(name, CHAMPION)
    if champion is None or "replaces" not in champion.tags:
        return []
    shared = ("replaces", "split_digest")
    rivals = [
        (standing.validation_accuracy, int(version.version), version)
        for version in versions(name)
        if all(version.tags.get(key) == champion.tags.get(key) for key in shared)
        and (standing := described_by(version)[0]) is not None
        and "promotion_id" in version.tags
    ]
    if len(rivals) < 2:
        return []
    client = mlflow.MlflowClient()
    *_, second, best = ordered = [version for *_, version in sorted(rivals, key=lambda rival: rival[:2])]
    registry.set_alias(name, PREVIOUS, second.version)
    registry.set_alias(name, CHAMPION, best.version)
    for worse, better in pairwise(ordered):  # as if each had been promoted after the one before
        client.set_model_version_tag(name, better.version, "replaces", worse.tags["promotion_id"])
    numbers = " and ".join(str(v.version) for v in ordered)
    return [f"{name}: versions {numbers} were promoted at once: version {best.version} is champion"]
