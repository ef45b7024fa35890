"""Markdown: text that is shown as it is written, tables, and one HTML page with its figures in it."""

import base64
import re
from pathlib import Path

import pandas as pd
from markdown_it import MarkdownIt

MARKUP = re.compile(r"[\\`*\[\]<&|~]|\b_|_\b")  # what Markdown would not show as it is written
STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; white-space: nowrap; }
img { max-width: 100%; }
"""


def literal(value: object) -> str:
    """Markdown that shows `value` as it is written."""
    return MARKUP.sub(r"\\\g<0>", str(value))


def markdown_table(table: pd.DataFrame) -> str:
    """A table of strings in Markdown, without its index."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(literal(cell) for cell in row)} |" for row in rows)


def to_html(text: str, folder: Path) -> str:
    """The report as one page, its figures from `folder` within it."""
    body = MarkdownIt("commonmark").enable("table").render(text)

    def embedded(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{image}"'

    body = re.sub(r'src="([^"]+\.png)"', embedded, body)
    title = text.splitlines()[0].lstrip("# ")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
