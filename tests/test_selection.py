"""The choice of the champion: by mean validation accuracy, whatever the test images say."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.champion.selection import choose, read_scores
from pipeline.shared.errors import PipelineError
from pipeline.shared.trained import Trained

accuracies = st.integers(0, 5000).map(lambda right: right / 5000)


def scores_of(validation: dict[str, list[float]], test: float = 0.5) -> pd.DataFrame:
    """A row for each seed of each variant."""
    rows = [
        {"variant": name, "seed": seed, "validation_accuracy": value, "test_accuracy": test}
        for name, values in validation.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_best_mean_over_seeds_wins_with_its_best_seed() -> None:
    assert choose(scores_of({"wide": [0.7, 0.6], "deep": [0.7, 0.8]}, test=0.65)) == {
        "variant": "deep",
        "seed": 1,
        "validation_accuracy": 0.8,
        "mean_validation_accuracy": 0.75,
        "seeds": 2,
        "test_accuracy": 0.65,
        "runner_up": {"variant": "wide", "mean_validation_accuracy": pytest.approx(0.65)},
    }


def test_lucky_seed_of_a_worse_variant_does_not_win() -> None:
    decision = choose(scores_of({"lucky": [0.9, 0.5, 0.5], "steady": [0.7, 0.71, 0.7]}))
    assert (decision["variant"], decision["seed"]) == ("steady", 1)
    assert decision["runner_up"]["variant"] == "lucky"


@pytest.mark.parametrize("names", [["b", "a", "c"], ["c", "b", "a"]])
def test_among_equals_the_first_of_params_wins(names: list[str]) -> None:
    decision = choose(scores_of({name: [0.5, 0.7, 0.7] for name in names}))
    assert (decision["variant"], decision["seed"]) == (names[0], 1)
    assert decision["runner_up"]["variant"] == names[1]


def test_same_accuracies_in_another_order_of_seeds_are_equals() -> None:
    decision = choose(scores_of({"first": [0.1, 0.2, 0.6], "second": [0.6, 0.2, 0.1]}))
    assert decision["variant"] == "first"


def test_only_variant_has_no_runner_up() -> None:
    assert choose(scores_of({"only": [0.6]}))["runner_up"] is None


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(accuracies, accuracies, accuracies), min_size=1, max_size=5),
    st.data(),
)
def test_test_accuracies_never_matter(validation: list[tuple[float, ...]], data: st.DataObject) -> None:
    scores = scores_of({f"variant{number}": list(values) for number, values in enumerate(validation)})
    others = data.draw(st.lists(accuracies, min_size=len(scores), max_size=len(scores)))
    one, other = choose(scores), choose(scores.assign(test_accuracy=others))
    assert one | {"test_accuracy": None} == other | {"test_accuracy": None}


@settings(deadline=None, max_examples=25)
@given(st.permutations([0.61, 0.62, 0.63, 0.64]))
def test_best_validation_accuracy_wins_wherever_it_stands(values: list[float]) -> None:
    decision = choose(scores_of({f"variant{value}": [value] for value in values}))
    assert decision["variant"] == "variant0.64"
    assert decision["runner_up"] == {"variant": "variant0.63", "mean_validation_accuracy": 0.63}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the metrics of a variant that params.yaml names and of one that it does not."""
    for name, accuracy in {"named-0": 0.6, "named-1": 0.7, "former-0": 0.9}.items():
        scores: dict[str, Any] = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.1}}
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps(scores))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_metrics_of_variants_that_are_not_named_are_not_read() -> None:
    table = read_scores([Trained("named", 0), Trained("named", 1)])
    assert table["variant"].tolist() == ["named", "named"]
    assert table["seed"].tolist() == [0, 1]
    assert table["validation_accuracy"].tolist() == [0.6, 0.7]
    assert table["test_accuracy"].tolist() == pytest.approx([0.5, 0.6])


@pytest.mark.usefixtures("project")
def test_scores_stand_in_the_order_of_params() -> None:
    assert read_scores([Trained("named", 1), Trained("former", 0), Trained("named", 0)])["seed"].tolist() == [
        1,
        0,
        0,
    ]


def test_models_that_diverged_are_skipped(project: Path) -> None:
    (project / "metrics/runaway-0.json").write_text('{"status": "diverged", "reason": "loss"}')
    scores = read_scores([Trained("runaway", 0), Trained("named", 0)])
    assert scores["variant"].tolist() == ["named"]
    with pytest.raises(PipelineError, match="every training diverged"):
        read_scores([Trained("runaway", 0)])
