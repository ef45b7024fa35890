"""Read JSON and CSV files that a stage wrote, and check them with pydantic.

Raises PipelineError, in one line with the file and the key, if a file is missing, damaged or impossible.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, FiniteFloat
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import parsed

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[=@\t\r]|[+-](?![\w. ]*$)")  # the beginning of a cell that a spreadsheet may run
Accuracy = Annotated[FiniteFloat, Field(ge=0, le=1)]
Number = Annotated[float, BeforeValidator(lambda text: text or "nan")]  # may be infinite or missing


def without_formula(cell: Any) -> Any:
    """A cell of CSV, with an apostrophe before a text that a spreadsheet might run as a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def read_json(path: Path, kind: Any) -> Any:
    """The content of a JSON file as `kind`, a pydantic model or a type."""
    with _readable(path):
        return parsed(kind, from_json(path.read_bytes()))


def read_table(path: Path, columns: dict[str, Any], empty: bool = False) -> "pd.DataFrame":
    """A CSV file. `columns` has the types of the required columns; others are finite numbers.

    If `empty`, there may be no rows.
    """
    import pandas as pd  # a third of a second, which most stages do not need

    with _readable(path), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        kinds = dict.fromkeys(reader.fieldnames or [], FiniteFloat) | columns
        row: Any = TypedDict("Row", kinds)  # type: ignore[misc]
        rows: list[Any] = parsed(list[row], list(reader))
        if not rows and not (empty and reader.fieldnames):
            raise ValueError("no rows")
        return pd.DataFrame(rows, columns=list(kinds))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        reason = in_a_line(getattr(error, "strerror", None) or error)
        raise PipelineError(f"{path}: cannot be read: {reason}; run `dvc repro` to make it again") from error
