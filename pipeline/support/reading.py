"""Read results and check them. What is missing, damaged or impossible is an error of one line.

Every number is finite, and one whose name ends with `accuracy` lies between 0 and 1.
"""

import json
import math
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.support.errors import PipelineError, in_a_line

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
}


def read_json(path: Path, expected: Any) -> Any:
    """The content of a JSON file. Raises PipelineError unless it is as expected.

    `expected` is a type; a dict of required keys and what is expected of each, or of every key for `...`; a
    list of what is expected of every item; or a tuple of what is expected unless the content is null.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        _check(content, expected, [])
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return content


def read_table(
    path: Path, columns: dict[str, type], finite: bool = True, empty: bool = False
) -> "pd.DataFrame":
    """A CSV file. Raises PipelineError if a column or all rows are missing, or a value is impossible.

    `columns` holds the types of the required columns; others are numbers. A text may be anything, `NA` and
    `null` included. Without `finite`, numbers may be infinite or missing; if `empty`, there may be no rows.
    """
    import numpy as np  # with pandas a third of a second, which most stages do not need
    import pandas as pd

    texts = [name for name, kind in columns.items() if kind is str]
    missing_numbers = {name: [""] for name in columns if name not in texts}
    try:
        table = pd.read_csv(path, dtype=columns, keep_default_na=False, na_values=missing_numbers)
        if missing := columns.keys() - table:
            raise ValueError(f"{min(missing)}: missing")
        if table.empty and not empty:
            raise ValueError("no rows")
        for name, values in table.drop(columns=texts).astype(float).items():
            if finite and not np.isfinite(values).all():
                raise ValueError(f"{name}: must be finite numbers")
            if str(name).endswith("accuracy") and ((values < 0) | (values > 1)).any():
                raise ValueError(f"{name}: must be numbers from 0 to 1")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return table


def _check(content: Any, expected: Any, keys: list[str]) -> None:
    """Raise ValueError, with the name of the key, unless a content is as expected."""
    if isinstance(expected, tuple):
        if content is not None:
            _check(content, expected[0], keys)
        return
    kind = expected if isinstance(expected, type) else type(expected)
    where, received = ".".join(keys) or "the file", reprlib.repr(content)
    is_kind = isinstance(content, int | float if kind is float else kind)
    if isinstance(content, bool) != (kind is bool):  # which Python counts among the integers
        is_kind = False
    if not is_kind or (kind is float and not math.isfinite(content)):
        raise ValueError(f"{where}: must be {KINDS[kind]}; received {received}")
    if where.endswith("accuracy") and not 0 <= content <= 1:
        raise ValueError(f"{where}: must be a number from 0 to 1; received {received}")
    for number, item in enumerate(content if isinstance(expected, list) else []):
        _check(item, expected[0], [*keys, str(number)])
    for key, required in expected.items() if isinstance(expected, dict) else []:
        for name in content if key is ... else [key]:
            if name not in content:
                raise ValueError(f"{'.'.join([*keys, name])}: missing")
            _check(content[name], required, [*keys, name])


def _unreadable(path: Path, error: Exception) -> PipelineError:
    reason = in_a_line(getattr(error, "strerror", None) or error)
    return PipelineError(f"{path}: cannot be read: {reason}; run `dvc repro` to make it again")
