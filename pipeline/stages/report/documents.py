"""The documents of `report`, from the templates of this folder."""

import base64
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from pipeline.params import Card
from pipeline.stages.report import template_data
from pipeline.stages.report.results import Results
from pipeline.stages.report.tables import literal, markdown_table
from pipeline.support.words import count

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html.jinja"], default=False),  # Markdown has its own filter, `literal`
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals["count"] = count
TEMPLATES.filters |= {"literal": literal, "number": format, "table": markdown_table}


def report(results: Results) -> str:
    """The report in Markdown, with figures beside it."""
    return _markdown("report.md.jinja", template_data.report_variables(results))


def model_card(results: Results, card: Card) -> str:
    """The card of the chosen model in Markdown, in Hugging Face's format, with figures beside it.

    `card` has what only a person can say.
    """
    return _markdown("model-card.md.jinja", template_data.card_variables(results) | {"card": card})


def html_page(text: str, folder: Path, title: str) -> str:
    """Markdown as one HTML page, well-formed XML too, with its contents and the figures of `folder` in it."""
    markdown, contents = MarkdownIt("commonmark").enable("table"), []
    tokens = markdown.parse(text)
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", re.sub(r"\W+", "-", inline.content).lower())
            contents.append((token.attrs["id"], markdown.renderInline(inline.content)))

    def embedded(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{image}"'

    body = markdown.renderer.render(tokens, markdown.options, {})
    body = re.sub(r'src="([^"]+\.png)"', embedded, body)
    summary, heading, sections = body.partition("<h2")
    page = TEMPLATES.get_template("page.html.jinja")
    return page.render(title=title, summary=summary, contents=contents, body=heading + sections)


def _markdown(template: str, data: dict[str, Any]) -> str:
    """A template's text, with each paragraph and list item on one line, since MLflow shows line breaks."""
    blocks = re.split(r"\n{2,}", TEMPLATES.get_template(template).render(data).strip())
    return "\n\n".join(map(_in_one_line, blocks)) + "\n"


def _in_one_line(block: str) -> str:
    is_table_or_header = block.startswith(("|", "---"))
    return block if is_table_or_header else re.sub(r"\n(?!- )\s*", " ", block)
