"""Markdown tables, and Markdown that shows a text exactly as it is written."""

import re
from collections.abc import Callable

import pandas as pd

# What Markdown, or GitHub's mathematics, would not show as it is written; `_` is harmless within a word.
MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
SPACE = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")


def literal(value: object) -> str:
    """Markdown that shows `value` as it is written."""
    return SPACE.sub(lambda match: f"&#{ord(match[0])};", MARKUP.sub(r"\\\g<0>", str(value)))


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown, its cells as they are written; its index is the first column if it has a name."""
    cells = table.reset_index() if table.index.name is not None else table
    shown = cells.astype(str).map(literal).rename(columns=literal)
    return shown.to_markdown(index=False, tablefmt="github", disable_numparse=True)


def in_digits(form: str) -> Callable[[float], str]:
    """A formatter of a table's numbers; "" of a missing one."""
    return lambda value: "" if pd.isna(value) else format(value, form)
