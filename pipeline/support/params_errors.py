"""Read params.yaml and search.yaml, and say what is wrong with them."""

import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.support.errors import PipelineError, in_a_line

AnyModel = TypeVar("AnyModel", bound=BaseModel)

LIMIT = 10  # problems in one error
PLAIN = {  # pydantic's errors, by their type, in plain words
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "string_type": "must be text",
    "too_short": "must not be empty",
}


def load_params(model: type[AnyModel], path: Path) -> AnyModel:
    """Parse a YAML file into `model`, with the parser that DVC uses.

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
    return validated(model, content, str(path))


def validated(model: type[AnyModel], content: Any, where: str) -> AnyModel:
    """Content as `model`. Raises PipelineError, with every invalid key; its line begins with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        problems = [_worded(model, content, problem) for problem in found[:LIMIT]]
        raise PipelineError(f"{where}: {joined(problems, len(found))}") from error


def text(pattern: str, described: str) -> AfterValidator:
    """A check that a whole text matches a pattern, with its description in plain words for the error."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {described}")
        return value

    return AfterValidator(check)


def first_problem(error: ValidationError) -> str:
    """The first problem of a file that a stage wrote, in a line: its key, what was expected and received."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("("))
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "value_error":  # a check of the whole file, which names its keys itself
        return _rule(problem)
    return f"{key or 'the file'}: {_rule(problem)}; received {shortened(problem['input'])}"


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


def joined(problems: list[str], total: int | None = None) -> str:
    """The first ten problems and the number of the others, of `total` or of those given, in one line."""
    others = (total or len(problems)) - LIMIT
    more = f"; and {others} more" if others > 0 else ""
    return in_a_line("; ".join(problems[:LIMIT]) + more)


def _rule(problem: Any) -> str:
    """What pydantic expected, in plain words."""
    message: str = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return PLAIN.get(problem["type"], message)


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
        return f"{key or 'the file'}: must be a mapping of keys; received {received}"
    message = _rule(problem)
    if not key:  # a check of the whole file, which names its keys itself
        return message
    return f"{key}: {message}; received {received}"


def _key(content: Any, location: tuple[str | int, ...]) -> list[str]:
    """The keys of an error's location, without what pydantic adds: the value of `source` after `data`, the
    names of other choices in parentheses, and [key]."""
    keys = []
    for number, part in enumerate(location):
        if isinstance(part, str) and (part.startswith("(") or part == "[key]"):
            continue
        if number == 1 and isinstance(content, dict) and content.get("source") == part:
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
        several = [] if "discriminator" in node else node.get("anyOf", node.get("oneOf", []))
        choices = [choice for choice in several if "$ref" in choice]
        node = choices[0] if choices else node
        return definitions[node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    for part in location:
        if str(part).startswith("("):
            continue
        tagged = schema.get("discriminator", {}).get("mapping", {})
        patterned: Any = next(iter(schema.get("patternProperties", {}).values()), {})
        children = schema.get("properties", {})
        child = children.get(part, schema.get("additionalProperties") or patterned)
        schema = resolved({"$ref": tagged[part]} if part in tagged else child)
    return list(schema.get("properties", {}))
