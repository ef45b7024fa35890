"""params.yaml read into frozen objects, and what is wrong with it in words.

The objects are in `pipeline.settings.hyperparameters` and `pipeline.params`.
"""

import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.errors import PipelineError, in_a_line
from pipeline.paths import PARAMS

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def read_params(model: type[AnyModel], path: Path = PARAMS) -> AnyModel:
    """Parse params.yaml, with DVC's own YAML parser, into `model`.

    Raises PipelineError with one line: every wrong key, what is allowed and what was received.
    """
    try:
        content = YAML(typ="safe").load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise PipelineError(f"{path}: cannot be read: {line}{in_a_line(error.problem)}") from error
    except Exception as error:  # what the parser raises depends on what is wrong
        raise PipelineError(f"{path}: cannot be read: {in_a_line(error)}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [_in_words(model, problem) for problem in error.errors(include_url=False)]
        raise PipelineError(f"{path}: {joined(problems)}") from error


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlong, self.maxlevel = 60, 2

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python turns no larger ones into digits
            return f"an integer of {x.bit_length()} bits"


def shortened(value: Any) -> str:
    """A value as Python writes it, in so many characters that a line remains a line."""
    return _Short().repr(value)


def joined(problems: list[str], limit: int = 10) -> str:
    """Some problems in one line, the first ones where they are many."""
    more = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return in_a_line("; ".join(problems[:limit]) + more)


def _in_words(model: type[BaseModel], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(model, problem["loc"][:-1]))
        return f"{key}: unknown key; allowed: {allowed}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    received = shortened(problem["input"])
    if problem["type"] == "model_type":
        return f"{key or 'the file'}: a mapping of keys is allowed; received {received}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not key:  # a check over the whole file, which names its keys itself
        return message
    return f"{key}: {message}; received {received}"


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that the section at `location` knows."""
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolved(node: Any) -> Any:
        choices = [choice for choice in node.get("anyOf", []) if "$ref" in choice]
        node = choices[0] if choices else node
        return definitions[node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    for part in location:
        patterned: Any = next(iter(schema.get("patternProperties", {}).values()), {})
        children = schema.get("properties", {})
        schema = resolved(children.get(part, schema.get("additionalProperties") or patterned))
    return list(schema.get("properties", {}))
