"""Markdown: text that is shown as it is written, tables, and one HTML page with its figures in it."""

import base64
import html
import re
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt

# What Markdown, or GitHub's mathematics, would not show as it is written; `_` is harmless within a word.
MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
SPACE = re.compile(r"[\x00-\x1f\x7f]|^ | $")
PAGE = Path(__file__).with_name("page.html")


def literal(value: object) -> str:
    """Markdown that shows `value` as it is written."""
    return SPACE.sub(lambda match: f"&#{ord(match[0])};", MARKUP.sub(r"\\\g<0>", str(value)))


def markdown_table(table: pd.DataFrame) -> str:
    """A table of strings in Markdown; its index is the first column if it has a name."""
    named = table.index.name is not None
    header = [table.index.name] * named + list(table.columns)
    rows: list[Any] = [header, ["---"] * len(header), *table.astype(str).itertuples(index=named, name=None)]
    return "\n".join(f"| {' | '.join(literal(cell) for cell in row)} |" for row in rows)


def in_digits(form: str) -> Callable[[float], str]:
    """A formatter of a table's numbers; "" of a missing one."""
    return lambda value: "" if pd.isna(value) else format(value, form)


def to_html(text: str, folder: Path, title: str) -> str:
    """The report as one page, well-formed XML too, with the figures of `folder` in it."""
    body = MarkdownIt("commonmark").enable("table").render(text)

    def embedded(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{image}"'

    body = re.sub(r'src="([^"]+\.png)"', embedded, body)
    return Template(PAGE.read_text()).substitute(title=html.escape(title), body=body)
