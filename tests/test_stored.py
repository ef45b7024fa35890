"""Stored scores are those of the stored probabilities, or promotion is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.scoring.stored import check_scores, read_probabilities
from pipeline.shared.arrays import write_arrays, write_json
from pipeline.shared.errors import PipelineError
from pipeline.shared.paths import PREPARED
from pipeline.shared.trained import Trained

ONE = Trained("one", 0)
LABELS = np.array([0, 1, 1, 0])
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], np.float32)  # 3 of 4 are right


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with its scores and probabilities; nothing of test images."""
    monkeypatch.chdir(tmp_path)
    counts = {"validation": len(LABELS)}
    write_arrays(PREPARED / "split", {}, classes=["cat", "dog"], counts=counts)
    write_arrays(PREPARED / "validation", {"labels": LABELS})
    write_arrays(ONE.predictions, {"validation": PROBABILITIES})
    write_scores(0.75)


def write_scores(accuracy: float) -> None:
    write_json(ONE.scores, {part: {"accuracy": accuracy} for part in ("validation", "test")})


def test_scores_of_the_stored_probabilities_are_accepted() -> None:
    check_scores([ONE])


@pytest.mark.parametrize("edited", [0.76, 1.0, 0.5])
def test_a_plausible_edit_of_the_scores_is_found(edited: float) -> None:
    write_scores(edited)
    message = f"metrics/one-0.json: validation accuracy {edited}, but predictions/one-0 gives 0.75: "
    with pytest.raises(PipelineError, match=message):
        check_scores([ONE])


def test_a_model_that_diverged_has_no_scores_to_check() -> None:
    write_json(ONE.scores, {"status": "diverged", "reason": "loss"})
    check_scores([ONE])


@pytest.mark.parametrize(
    "arrays",
    [
        {"test": PROBABILITIES},
        {"validation": PROBABILITIES[:3]},
        {"validation": PROBABILITIES.T},
        {"validation": PROBABILITIES * 2},
        {"validation": PROBABILITIES * np.nan},
    ],
)
def test_probabilities_must_fit_the_images(arrays: dict[str, Any]) -> None:
    write_arrays(ONE.predictions, arrays)
    with pytest.raises(PipelineError, match=r"predictions/one-0/validation.npy: expected .*\(4, 2\)"):
        read_probabilities(ONE, "validation")
