"""The choice of a model: by mean validation accuracy, whatever the test images say."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.arrays import write_json
from pipeline.shared.selection import Selection, read_scores, read_selection
from pipeline.stages.select import choose
from pipeline.support.model_files import ModelFiles
from tests.conftest import refusal

accuracies = st.integers(0, 5000).map(lambda right: right / 5000)


def approx(*values: float) -> list[Any]:
    return [pytest.approx(value) for value in values]


def scores_of(validation: dict[str, list[float]], test: float = 0.5) -> pd.DataFrame:
    """A row for each seed of each variant."""
    rows = [
        {"variant": name, "seed": seed, "validation_accuracy": value, "test_served_accuracy": test}
        for name, values in validation.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("validation", "chosen", "runner_up"),
    [
        ({"lucky": [0.9, 0.5, 0.5], "steady": [0.7, 0.71, 0.7]}, ("steady", 1), "lucky"),
        ({name: [0.5, 0.7, 0.7] for name in "bac"}, ("b", 1), "a"),  # among equals the first of params.yaml
        ({"first": [0.1, 0.2, 0.6], "second": [0.6, 0.2, 0.1]}, ("first", 2), "second"),  # equals, too
        ({"only": [0.6]}, ("only", 0), None),
    ],
)
def test_choice(validation: dict[str, list[float]], chosen: tuple[str, int], runner_up: str | None) -> None:
    decision = choose(scores_of(validation))
    assert (decision["variant"], decision["seed"]) == chosen
    assert (decision["runner_up"] or {}).get("variant") == runner_up


@pytest.mark.parametrize(("metric", "chosen"), [("f1_macro", "b"), ("loss", "a"), ("accuracy", "a")])
def test_the_metric_decides_and_losses_are_better_when_lower(metric: str, chosen: str) -> None:
    columns = {"accuracy": [0.9, 0.8], "f1_macro": [0.5, 0.6], "loss": [0.3, 0.4]}
    scores = scores_of({"a": [0.0], "b": [0.0]})
    decision = choose(scores.assign(**{f"validation_{key}": value for key, value in columns.items()}), metric)
    assert (decision["variant"], decision["metric"]) == (chosen, metric)
    [first, second] = columns[metric] if chosen == "a" else columns[metric][::-1]
    assert (decision["validation_score"], decision["mean_validation_score"]) == (first, first)
    assert decision["runner_up"]["mean_validation_score"] == second


@settings(max_examples=25)
@given(st.lists(st.tuples(accuracies, accuracies, accuracies), min_size=1, max_size=5), st.data())
def test_test_accuracies_never_matter(validation: list[tuple[float, ...]], data: st.DataObject) -> None:
    scores = scores_of({f"variant{number}": list(values) for number, values in enumerate(validation)})
    others = data.draw(st.lists(accuracies, min_size=len(scores), max_size=len(scores)))
    one, other = choose(scores), choose(scores.assign(test_served_accuracy=others))
    assert one | {"test_accuracy": None} == other | {"test_accuracy": None}


@pytest.mark.usefixtures("workplace")
def test_scores_of_the_named_models_are_read_in_their_order_unless_they_diverged() -> None:
    for name, accuracy in {"named-0": 0.6, "named-1": 0.7, "former-0": 0.9}.items():
        scores = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.1}}
        served = {"validation_served": {"accuracy": 0.9}, "test_served": {"accuracy": accuracy - 0.2}}
        write_json(Path(f"metrics/{name}.json"), scores | served)
    write_json(Path("metrics/runaway-0.json"), {"status": "diverged", "reason": "loss"})
    table = read_scores([ModelFiles("named", 1), ModelFiles("runaway", 0), ModelFiles("named", 0)])
    expected = [["named", 1, 0.7, *approx(0.6, 0.9, 0.5)], ["named", 0, 0.6, *approx(0.5, 0.9, 0.4)]]
    parts = ("validation", "test", "validation_served", "test_served")
    assert list(table.columns[2:]) == [f"{part}_accuracy" for part in parts]
    assert table.to_numpy().tolist() == expected
    assert "every training diverged" in refusal(read_scores, [ModelFiles("runaway", 0)])


@pytest.mark.usefixtures("workplace")
def test_a_selection_is_read_as_it_was_written_and_a_damaged_one_is_a_line() -> None:
    chosen = Selection(**choose(scores_of({"one": [0.5], "other": [0.4]})), model_digest="0123")
    write_json(Path("selection.json"), chosen.model_dump())
    assert read_selection() == chosen
    assert read_selection().files == ModelFiles("one", 0)
    former = chosen.model_dump(exclude={"metric", "validation_score", "mean_validation_score", "runner_up"})
    second = {"variant": "other", "mean_validation_accuracy": 0.4}
    write_json(Path("selection.json"), former | {"mean_validation_accuracy": 0.5, "runner_up": second})
    assert read_selection() == chosen  # as it was written when only accuracy could choose
    write_json(Path("selection.json"), chosen.model_dump() | {"seed": "0"})
    line = "selection.json: cannot be read: seed: must be a whole number; received '0'"
    assert refusal(read_selection).startswith(line)
