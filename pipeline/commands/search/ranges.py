"""The ranges of search.yaml, and a variant's block with values from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from optuna import Trial
from pydantic import Discriminator, Field, RootModel, Tag, model_validator

from pipeline.core.variant import Section, Variant
from pipeline.params import Block, Params
from pipeline.support.errors import PipelineError
from pipeline.support.params_errors import load_params, validated

SEARCH = Path("search.yaml")
Scalar = bool | int | float | str


class Range(Section):
    """Numbers from `low` to `high`, whole ones if both are; on a logarithmic scale with `log`."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be greater than 0 if log is true")
        return self

    @property
    def ends(self) -> list[Scalar]:
        """The least and the largest value."""
        return [self.low, self.high]

    def __contains__(self, value: Scalar) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def suggest(self, trial: Trial, key: str) -> None:
        """Give a trial a value of a key."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            trial.suggest_int(key, self.low, self.high, log=self.log)
        else:
            trial.suggest_float(key, self.low, self.high, log=self.log)


class Choice(RootModel[list[Scalar]]):
    """One of several values."""

    @model_validator(mode="after")
    def _is_a_choice(self) -> Self:
        if len(self.root) < 2:
            raise ValueError("must have two options or more")
        return self

    @property
    def ends(self) -> list[Scalar]:
        """All values."""
        return self.root

    def __contains__(self, value: Scalar) -> bool:
        return value in self.root

    def suggest(self, trial: Trial, key: str) -> None:
        """Give a trial a value of a key."""
        trial.suggest_categorical(key, self.root)


Values = Annotated[
    Annotated[Range, Tag("(range)")] | Annotated[Choice, Tag("(options)")],
    Discriminator(lambda values: "(options)" if isinstance(values, list | Choice) else "(range)"),
]
Ranges = dict[str, Values]  # by the keys of a variant's block, such as optimizer.learning_rate


class SearchFile(RootModel[dict[str, Annotated[Ranges, Field(min_length=1)]]]):
    """All of search.yaml: ranges for each variant."""


def read_ranges(variant: str, params: Params) -> Ranges:
    """The ranges for a variant. Raises PipelineError if there are none, or a value is not allowed."""
    if not SEARCH.is_file():
        raise PipelineError(f"{SEARCH}: no such file; docs/search.md has an example")
    searches = load_params(SearchFile, SEARCH).root
    if variant not in searches or variant not in params.variants:
        known = ", ".join(name for name in searches if name in params.variants) or "none"
        raise PipelineError(f"{SEARCH}: {variant}: no such variant with ranges; there are: {known}")
    for key, values in searches[variant].items():
        for value in values.ends:
            with_values(params, variant, {key: value})
    return searches[variant]


def with_values(params: Params, variant: str, values: Mapping[str, Scalar]) -> Block:
    """A variant with other values of some keys. Raises PipelineError if one is not allowed."""
    block = params.variants[variant].model_dump(exclude_none=True)
    for key, value in values.items():
        *path, last = key.split(".")
        inside = block
        for name in path:
            if not isinstance(inside.get(name), dict):
                inside[name] = {"name": inside[name]} if name in inside else {}
            inside = inside[name]
        inside[last] = value
    return validated(Block, block, f"{SEARCH}: {variant}")


def present(variant: Variant, ranges: Ranges) -> dict[str, Scalar]:
    """The values that a variant has now; those that it lacks, or that are in no range, are missing."""
    found = {}
    for key, values in ranges.items():
        inside: Any = variant.model_dump(exclude_none=True)
        for name in key.split("."):
            inside = inside.get(name) if isinstance(inside, dict) else None
        if inside is not None and not isinstance(inside, dict) and inside in values:
            found[key] = inside
    return found
