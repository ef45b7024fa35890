"""Keras objects by the names and arguments of params.yaml: optimizers, schedules, random layers."""

from typing import Any

from pipeline.core.variant import Named
from pipeline.stages.recipes.settings_check import class_name, classes
from pipeline.support.errors import PipelineError, in_a_line


def kinds_of(package: str, *modules: Any) -> dict[str, type]:
    """The classes, Keras's and ours, that params.yaml may name, by name; the modules have them."""
    return {
        name: next(getattr(module, name) for module in modules if hasattr(module, name))
        for name in classes(package)
    }


def keras_object(key: str, named: Named, kinds: dict[str, type]) -> Any:
    """The object with this name and arguments; `kinds` are the classes by name, of which there is this one.

    Raises PipelineError, naming the `key`, if Keras refuses an argument.
    """
    kind = kind_of(named, kinds)
    try:
        return kind(**named.arguments)
    except Exception as error:
        raise PipelineError(f"{key}: {in_a_line(error)[:500]}") from error


def kind_of(named: Named, kinds: dict[str, type]) -> type:
    """The class with this name."""
    return kinds[class_name(named, kinds) or named.name]
