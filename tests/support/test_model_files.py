"""Results that are read back: what is missing, damaged or impossible is one line that names file and key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.arrays import write_json
from pipeline.shared.selection import read_selection
from pipeline.support.model_files import ModelFiles, all_models
from tests.conftest import MISSING, change, refusal

ONE = ModelFiles("shallow", 0)
SECOND = {"variant": "translate", "mean_validation_score": 0.6}
FILES: dict[str, Any] = {
    "metrics/shallow-0.json": {"validation": {"accuracy": 0.7, "loss": 1}, "test": {"accuracy": 1.0}},
    "models/shallow-0/training.json": {
        "tags": {"status": "trained", "seed": "0"},
        "params": {"epochs": 2},
        "metrics": {"validation/accuracy": 0.7, "parameters": 9, "stopped_epoch": 2},
    },
    "recipes/_index.json": [{"variant": "shallow", "seed": 0}],
    "selection.json": SECOND
    | {"seed": 0, "seeds": 1, "validation_score": 0.7, "validation_accuracy": 0.7, "test_accuracy": 0.6}
    | {"model_digest": "0123", "runner_up": SECOND},
}
HISTORY = "epoch,accuracy,loss,val_accuracy,val_loss\n1,0.1,2.25,0.1,2.5\n2,0.1234567890123456,1e-9,1.0,3\n"
READERS: dict[str, Callable[[], Any]] = {
    "metrics/shallow-0.json": ONE.metrics,
    "models/shallow-0/training.json": ONE.record,
    "models/shallow-0/history.csv": ONE.epochs,
    "recipes/_index.json": all_models,
    "selection.json": read_selection,
}


@pytest.fixture(autouse=True)
def results(workplace: Path) -> None:
    for path, content in FILES.items():
        write_json(workplace / path, content)
    ONE.history.write_text(HISTORY)


def problem(path: str) -> str:
    """What is wrong with a file."""
    message = refusal(READERS[path])
    assert message.startswith(f"{path}: cannot be read: ")
    assert message.endswith("; run `dvc repro` to make it again")
    return message.split(": ", 2)[2].rpartition(";")[0]


def test_a_training_that_diverged_has_a_reason_and_may_have_infinite_losses() -> None:
    tags = {"status": "diverged", "reason": "loss is inf"}
    write_json(ONE.scores, tags)
    write_json(ONE.folder / "training.json", {"tags": tags, "params": {}, "metrics": {}})
    ONE.history.write_text(HISTORY + "3,0.1,inf,0.1,\n")
    assert ONE.divergence() == "loss is inf"
    assert ONE.record().outcome == "diverged: loss is inf"
    assert ONE.epochs()["loss"].tolist()[-1] == float("inf")


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"text"'])
def test_a_file_without_the_right_form_is_named(path: str, content: bytes | None) -> None:
    Path(path).unlink() if content is None else Path(path).write_bytes(content)
    problem(path)


SCORES, RECORD = "metrics/shallow-0.json", "models/shallow-0/training.json"
EDITS = [
    (SCORES, "validation.accuracy", 1e9, "validation.accuracy: must be less than or equal to 1; received 1"),
    (SCORES, "test.accuracy", float("nan"), "test.accuracy: must be a finite number; received nan"),
    (SCORES, "validation", [0.7], "validation: must be a mapping of keys; received [0.7]"),
    (SCORES, "test", MISSING, "test: missing"),
    (SCORES, "status", "diverged", "reason: missing"),
    (RECORD, "tags.status", MISSING, "tags.status: missing"),
    (
        RECORD,
        "metrics.validation/accuracy",
        7,
        "metrics.validation/accuracy: must be from 0 to 1",
    ),
    ("recipes/_index.json", "0.seed", True, "0.seed: must be a whole number; received True"),
]


@pytest.mark.parametrize(("path", "key", "value", "expected"), EDITS)
def test_an_impossible_edit_is_named_with_its_key(path: str, key: str, value: Any, expected: str) -> None:
    content = json.loads(Path(path).read_text())
    change(content, key, value)
    Path(path).write_text(json.dumps(content))
    assert problem(path).startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("val_loss", "loss_of_validation", "0.val_loss: missing"),
        ("2.25", "inf", "0.loss: must be a finite number"),
        ("1.0", "1.1", "1.val_accuracy: must be less than or equal to 1"),
    ],
)
def test_an_impossible_history_is_named_with_its_column(old: str, new: str, expected: str) -> None:
    ONE.history.write_text(HISTORY.replace(old, new))
    assert problem("models/shallow-0/history.csv").startswith(expected)
