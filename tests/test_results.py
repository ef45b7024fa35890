"""Results that were made ahead: whole or not at all, taken up as often as needed, failures reported once."""

from pathlib import Path

import pytest

from pipeline.shared import results
from pipeline.shared.arrays import write_json
from pipeline.shared.errors import PipelineError
from pipeline.shared.paths import RESULTS
from tests.conftest import refusal

KEY = "0" * 64
TAGS = {"variant": "shallow", "seed": "0"}
TARGET = Path("models/shallow-0")


@pytest.fixture(autouse=True)
def models(workplace: Path) -> None:
    (workplace / "models").mkdir()


def write(folder: Path) -> None:
    """What a training writes."""
    write_json(folder / "training.json", {"tags": TAGS})


def refuse(folder: Path) -> None:
    """Fail half-way, or if the work is done twice."""
    (folder / "half").touch()
    raise PipelineError("half-way")


def test_a_result_is_made_once_and_taken_up_again_after_a_kill_before_the_lock() -> None:
    results.make(KEY, write)
    results.make(KEY, refuse)  # is there already
    for _ in range(2):  # DVC was killed after the first, so it runs the stage again
        assert results.take(KEY, TARGET)
        assert [path.name for path in TARGET.iterdir()] == ["training.json"]
        (TARGET / "of a killed stage").touch()


def test_what_fails_half_way_leaves_a_note_and_no_result() -> None:
    assert refusal(results.make, KEY, refuse) == "half-way"
    assert refusal(results.take, KEY, TARGET) == "half-way"
    assert not results.take(KEY, TARGET)
    results.fail(KEY, "a full disk")
    results.forget_failures()
    assert not results.take(KEY, TARGET)
    folder = results.make(KEY, write)
    assert [path.name for path in folder.iterdir()] == ["training.json"]


@pytest.mark.parametrize("taken", [True, False])
def test_clearing_gives_the_tags_of_the_trainings_that_were_not_taken_up(taken: bool) -> None:
    results.make(KEY, write)
    if taken:
        results.take(KEY, TARGET)
    assert results.clear() == ([] if taken else [TAGS])
    assert not RESULTS.exists()
    assert TARGET.exists() == taken
