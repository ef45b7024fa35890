"""Reading params.yaml, and wording what is wrong with it."""

import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.shared.errors import PipelineError, in_a_line
from pipeline.shared.paths import PARAMS

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def load_params(model: type[AnyModel], path: Path = PARAMS) -> AnyModel:
    """Parse params.yaml into `model`, with the YAML parser that DVC uses.

    Raises PipelineError with every invalid key, what is allowed and what was received, in one line.
    """
    try:
        content = YAML(typ="safe").load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise PipelineError(f"{path}: cannot be read: {line}{in_a_line(error.problem)}") from error
    except Exception as error:  # the parser raises almost anything
        raise PipelineError(f"{path}: cannot be read: {in_a_line(error)}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [_worded(model, content, problem) for problem in error.errors(include_url=False)]
        raise PipelineError(f"{path}: {joined(problems)}") from error


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlong, self.maxlevel = 60, 2

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # more digits than Python converts
            return f"an integer of {x.bit_length()} bits"


def shortened(value: Any) -> str:
    """A value's repr, shortened to fit on a line."""
    return _Short().repr(value)


def joined(problems: list[str], limit: int = 10) -> str:
    """The first `limit` problems and the number of others, in one line."""
    more = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return in_a_line("; ".join(problems[:limit]) + more)


def _worded(model: type[BaseModel], content: Any, problem: Any) -> str:
    key = ".".join(_key(content, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed: {', '.join(_fields_at(model, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "union_tag_not_found":
        return f"{key}.{problem['ctx']['discriminator'].strip(chr(39))}: missing"
    received = shortened(problem["input"])
    if problem["type"] == "union_tag_invalid":
        tag = problem["ctx"]
        name = tag["discriminator"].strip("'")
        return f"{key}.{name}: allowed: {tag['expected_tags']}; received {shortened(problem['input'][name])}"
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return f"{key or 'the file'}: a mapping of keys is allowed; received {received}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not key:  # a check of the whole file, which names its keys itself
        return message
    return f"{key}: {message}; received {received}"


def _key(content: Any, location: tuple[str | int, ...]) -> list[str]:
    """The keys of an error's location, without the tags that pydantic adds for the choices of a union: the
    value of `source`, or a name in parentheses."""
    keys = []
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if isinstance(part, str) and part.startswith("("):
            continue
        if isinstance(content, dict) and not is_last and content.get("source") == part:
            continue
        if isinstance(content, list) and isinstance(part, int):
            content = content[part]
        elif isinstance(content, dict):
            content = content.get(part)
        else:  # a network given by its name alone
            continue
        keys.append(str(part))
    return keys


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that the section at `location` knows."""
    schema: Any = model.model_json_schema(mode="validation")
    definitions = schema.get("$defs", {})

    def resolved(node: Any) -> Any:
        choices = [choice for choice in node.get("anyOf", []) if "$ref" in choice]
        node = choices[0] if choices else node
        return definitions[node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    for part in location:
        tagged = schema.get("discriminator", {}).get("mapping", {})
        patterned: Any = next(iter(schema.get("patternProperties", {}).values()), {})
        children = schema.get("properties", {})
        child = children.get(part, schema.get("additionalProperties") or patterned)
        schema = resolved({"$ref": tagged[part]} if part in tagged else child)
    return list(schema.get("properties", {}))
