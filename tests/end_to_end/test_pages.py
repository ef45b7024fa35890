"""Every Markdown page: its fences close, no sentence is doubled, its links lead to files that exist."""

import re
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.conftest import ROOT, git

PAGES = git(["ls-files", "*.md", ":!benchmarks"], ROOT).splitlines()
LANGUAGES = {"", "bash", "python", "json", "yaml", "nginx", "mermaid"}


def texts(page: str) -> list[str]:
    """Its paragraphs, headings and cells, without code blocks."""
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())
    return [" ".join(token.content.split()) for token in tokens if token.type == "inline"]


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_that_opens_closes(page: str) -> None:
    fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}
    assert len(fences) % 2 == 0


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_there_twice(page: str) -> None:
    parts = [part for text in texts(page) for part in re.split(r"(?<=[.:?!]) ", text)]
    sentences = [part for part in parts if len(part) > 40 and part[-1] in ".:?!"]
    assert [sentence for sentence, count in Counter(sentences).items() if count > 1] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_exist(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", "\n".join(texts(page)))
    folder = (ROOT / page).parent
    assert [target for target in targets if not Path(folder / target).exists()] == []
