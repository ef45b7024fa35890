"""Check content that was read from a file with pydantic, and say in one line what is wrong with it."""

import re
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.support.errors import PipelineError, in_a_line

AnyModel = TypeVar("AnyModel", bound=BaseModel)

LIMIT = 10  # problems in one error
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 120
SHORT.maxlong, SHORT.maxlevel = 60, 2
MAPPING = "must be a mapping of keys"
PLAIN = {  # pydantic's errors, by their type, in plain words
    "bool_type": "must be true or false",
    "dict_type": MAPPING,
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "model_attributes_type": MAPPING,
    "model_type": MAPPING,
    "string_type": "must be text",
    "too_short": "must not be empty",
    "union_tag_invalid": "allowed: {expected_tags}",
}


def load_params(model: type[AnyModel], path: Path) -> AnyModel:
    """Parse a YAML file into `model`, with the parser that DVC uses.

    Raises PipelineError with every invalid key, what is allowed and what was received, in one line. Also if
    the file has anchors or merge keys.
    """
    try:
        written = path.read_text("utf-8")
        content = YAML(typ="safe").load(written)
        shared = [event for event in YAML(typ="safe").parse(written) if _is_shared(event)]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise PipelineError(f"{path}: cannot be read: {line}{in_a_line(error.problem)}") from error
    except Exception as error:  # the parser raises almost anything
        raise PipelineError(f"{path}: cannot be read: {in_a_line(error)}") from error
    if shared:
        why = "`dvc exp run -S ...` would change each place that shares a block, or none: write the keys out"
        raise PipelineError(f"{path}: line {shared[0].start_mark.line + 1}: must not have &, * or <<; {why}")
    return validated(model, content, str(path))


def _is_shared(event: Any) -> bool:
    """Whether YAML's parser met an anchor, an alias or a merge key."""
    return bool(getattr(event, "anchor", None)) or getattr(event, "value", None) == "<<"


def validated(model: type[AnyModel], content: Any, where: str) -> AnyModel:
    """Content as `model`. Raises PipelineError, with every invalid key; its line begins with `where`."""
    try:
        found: AnyModel = parsed(model, content)
    except ValueError as error:
        raise PipelineError(f"{where}: {error}") from error
    return found


def parsed(kind: Any, content: Any) -> Any:
    """Content as `kind`, a pydantic model or type. Raises ValueError, with every invalid key in one line."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problems = [_worded(kind, content, problem) for problem in error.errors(include_url=False)]
        raise ValueError(joined(problems)) from error


def text(pattern: str, described: str) -> AfterValidator:
    """A check that a whole text matches a pattern, with its description in plain words for the error."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {described}")
        return value

    return AfterValidator(check)


def shortened(value: Any) -> str:
    """A value's repr, shortened to fit on a line."""
    try:
        return SHORT.repr(value)
    except ValueError:  # Python does not convert it
        return "an integer of thousands of digits"


def joined(problems: Sequence[str]) -> str:
    """The first ten problems and the number of the others, in one line."""
    others = len(problems) - LIMIT
    more = f"; and {others} more" if others > 0 else ""
    return in_a_line("; ".join(problems[:LIMIT]) + more)


def _worded(kind: Any, content: Any, problem: Any) -> str:
    """One of pydantic's problems: the key, what was expected and what was received."""
    keys = []
    for part in problem["loc"]:
        with suppress(LookupError, TypeError):  # of what is not in the content: pydantic names choices, too
            content = content[part]
            keys.append(str(part))
    received, context, type_ = problem["input"], problem.get("ctx", {}), problem["type"]
    if type_ == "missing":
        return f"{'.'.join([*keys, str(problem['loc'][-1])])}: missing"
    if type_ == "extra_forbidden":
        return f"{'.'.join(keys)}: unknown key; allowed: {', '.join(_fields_at(kind, keys[:-1]))}"
    if type_.startswith("union_tag_"):
        keys.append(context["discriminator"].strip("'"))
        if type_ == "union_tag_not_found":
            return f"{'.'.join(keys)}: missing"
        received = received[keys[-1]]
    key = ".".join(keys)
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if type_ == "value_error" and not key:  # a check of the whole file, which names its keys itself
        return message
    if type_ in PLAIN:
        message = PLAIN[type_].format(**context)
    return f"{key or 'the file'}: {message}; received {shortened(received)}"


def _fields_at(kind: Any, keys: Sequence[str]) -> list[str]:
    """The keys that the section at `keys` knows, in content of this kind; none if there is no section."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        if "root" in fields:
            return _fields_at(fields["root"].annotation, keys)
        if not keys:
            return list(fields)
        return _fields_at(fields[keys[0]].annotation, keys[1:]) if keys[0] in fields else []
    inside = keys[1:] if get_origin(kind) in {dict, list} else keys
    return next(filter(None, (_fields_at(choice, inside) for choice in get_args(kind))), [])
