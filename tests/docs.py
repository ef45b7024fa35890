"""The examples in README and docs, which tests run as they are printed."""

from markdown_it import MarkdownIt

from tests.keras_models import ROOT


def examples(page: str, language: str, count: int) -> list[str]:
    """The code blocks of a page in a language, "" for those without one.

    `count` is how many there must be, so that neither a lost fence nor a new example goes unnoticed.
    """
    tokens = MarkdownIt().parse((ROOT / page).read_text())
    found = [token.content for token in tokens if token.type == "fence" and token.info == language]
    assert len(found) == count, f"{page}: {len(found)} examples in {language!r}, expected {count}"
    return found
