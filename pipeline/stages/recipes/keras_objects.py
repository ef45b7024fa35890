"""Keras objects by the names and arguments of params.yaml: optimizers, schedules, random layers."""

import inspect
from collections.abc import Iterable
from typing import Any

from pipeline.core.variant import Named
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

NOT_IN_PARAMS = {"inputs", "name", "kwargs"}  # parameters that params.yaml does not set


def by_name(kinds: Iterable[type]) -> dict[str, type]:
    """Classes by their names as `keras_object` looks them up."""
    return {kind.__name__.lower(): kind for kind in kinds}


def keras_object(key: str, named: Named, kinds: dict[str, type]) -> Any:
    """The object with this name and arguments; `kinds` are the classes by name.

    The name may be Keras's or have underscores: RandomFlip, random_flip. Raises PipelineError, naming the
    `key`, if there is none or Keras refuses an argument.
    """
    kind = class_of(named, kinds)
    if kind is None:
        allowed = ", ".join(sorted(kind.__name__ for kind in kinds.values()))
        raise PipelineError(f"{key}.name: allowed: {allowed}; received {shortened(named.name)}")
    check_arguments(key, kind, named.arguments)
    try:
        return kind(**named.arguments)
    except Exception as error:
        raise PipelineError(f"{key}: {in_a_line(error)[:500]}") from error


def class_of(named: Named, kinds: dict[str, type]) -> type | None:
    """The class with this name; None if there is none."""
    return kinds.get(named.name.lower().replace("_", ""))


def check_arguments(key: str, function: Any, arguments: dict[str, Any]) -> None:
    """Raise PipelineError if a function does not know all of these arguments."""
    known = [name for name in inspect.signature(function).parameters if name not in NOT_IN_PARAMS]
    if unknown := sorted(set(arguments) - set(known)):
        raise PipelineError(f"{key}.{unknown[0]}: unknown argument; allowed: {', '.join(known) or 'none'}")
