"""Numbers in words, and that all that prints a number of things uses them."""

import re

import pytest

from pipeline.support.words import count
from tests.conftest import ROOT

# Of each there is one in some run; there are always several images of a part, and several classes.
THINGS = "files|models|trainings|variants|trials|stages|labels|mistakes|duplicates"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "file", "0 files"), (1, "file", "1 file"), (2000, "file", "2,000 files"), (2, "class", "2 classes")],
)
def test_one_thing_is_singular(number: int, noun: str, words: str) -> None:
    assert count(number, noun) == words


def test_no_message_or_page_has_a_plural_of_its_own() -> None:
    plural = re.compile(rf"\{{[^{{}}:]*\}} (\w+ )?({THINGS})\b|\}}\}} (\w+ )?({THINGS})\b")
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "pipeline").rglob("*.jinja")]
    found = [(path.name, match[0]) for path in files for match in plural.finditer(path.read_text())]
    assert found == []
