"""A file is replaced all or nothing, whatever it is a link to."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.support.new_files import write_text


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_target_of_a_link_stays_as_it_is(workplace: Path, link: Callable[[Path, Path], None]) -> None:
    target, path = workplace / "object", workplace / "reports/report.md"
    target.write_text("old")
    path.parent.mkdir()
    link(target, path)
    Path("reports/report.md.partial").symlink_to(target)  # of a process that was killed, and then stored
    write_text(path, "new")
    assert (target.read_text(), path.read_text()) == ("old", "new")
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_alone(workplace: Path) -> None:
    write_text(path := workplace / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, 5000 * "new" + "\ud800")
    assert [one.read_text() for one in workplace.iterdir()] == ["old"]
