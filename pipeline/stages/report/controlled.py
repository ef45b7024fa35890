"""Which variants differ in one thing alone, so that their difference has one cause."""

from itertools import combinations
from typing import Any

Settings = dict[str, Any]

BASE = "init_from"  # the variant whose trained weights another one starts from
IRRELEVANT = {"threads", "device", "views"}  # to the weights of a variant, but for rounding
LENGTH = {"epochs", "early_stopping"}  # with early stopping, `epochs` is only a limit


def controlled_pairs(settings: dict[str, Settings]) -> dict[tuple[str, str], str]:
    """The pairs of variants, the later one first, that differ in one thing, and what that is."""
    found = {}
    for other, one in combinations(settings, 2):
        things = apart(settings[one], settings[other])
        if len(things) == 1 and things != ["network"]:  # another network differs in many things
            found[one, other] = things[0]
        elif settings[one].get(BASE) == other:
            found[one, other] = "further training"
    return found


def apart(one: Settings, other: Settings) -> list[str]:
    """The things in which two variants differ, by their keys in params.yaml.

    Another network or optimizer is one thing, with its arguments, and so is a section that only one has.
    """
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} - IRRELEVANT
    keys = {key for key in keys if not any(key.startswith(f"{whole}.") for whole in keys)}
    things = sorted(
        {key if _section(key) in _sections(one) & _sections(other) else _section(key) for key in keys}
    )
    if len(LENGTH & set(things)) > 1:
        things = [*(thing for thing in things if thing not in LENGTH), "when training ends"]
    return things


def _section(key: str) -> str:
    return key.partition(".")[0]


def _sections(settings: Settings) -> set[str]:
    return {_section(key) for key in settings}
