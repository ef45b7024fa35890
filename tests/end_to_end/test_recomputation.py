"""The figures of a run, recomputed from its stored probabilities without the pipeline's code."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata, studentized_range

from tests.conftest import Clone
from tests.example_results import table_rows

PARTS = ("validation", "test")
Answers = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def folder(clone: Clone) -> Path:
    """The quickstart's: three variants, one seed."""
    return clone.folder / "quickstart"


@pytest.fixture(scope="module")
def labels(folder: Path) -> dict[str, np.ndarray]:
    """The labels of each part."""
    return {part: np.load(folder / f"data/prepared/{part}/labels.npy") for part in PARTS}


@pytest.fixture(scope="module")
def answers(folder: Path, labels: dict[str, np.ndarray]) -> Answers:
    """The probabilities of each model for each part, also as it is served."""
    found: Answers = {}
    for path in sorted((folder / "predictions").iterdir()):
        stored = {part: np.load(path / f"{part}.npy").astype(float) for part in PARTS}
        heat = temperature(labels["validation"], stored["validation"])
        powers = {part: rows ** (1 / heat) for part, rows in stored.items()}
        served = {f"{part}_served": rows / rows.sum(axis=1, keepdims=True) for part, rows in powers.items()}
        found[path.name] = stored | served
    return found


def temperature(labels: np.ndarray, rows: np.ndarray) -> float:
    """The most likely temperature, whose logarithm is expected within .5 of 0."""

    def loss(logarithm: float) -> float:
        powers = rows ** np.exp(-logarithm)
        of_label = powers[range(len(labels)), labels] / powers.sum(axis=1)
        return float(-np.log(of_label).sum() + 2 * logarithm**2)

    return round(float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)), 3)


def by_class(labels: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """Precision, recall, F1, AUC and the number of images of each class, by their definitions."""
    counts = confusion(labels, rows)
    right, actual, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    ranks = rankdata(rows, axis=0)
    above = np.array([ranks[labels == label, label].sum() for label in range(len(counts))])
    return pd.DataFrame(
        {
            "precision": right / predicted,
            "recall": right / actual,
            "f1": 2 * right / (actual + predicted),
            "auc": (above - actual * (actual + 1) / 2) / (actual * (len(labels) - actual)),
            "images": actual,
        }
    )


def confusion(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The number of images of each class (rows) that were predicted as each class (columns)."""
    counts = np.zeros((rows.shape[1],) * 2, int)
    np.add.at(counts, (labels, rows.argmax(axis=1)), 1)
    return counts


def scores(labels: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """All scores, by their definitions."""
    classes, images = by_class(labels, rows), len(labels)
    right, confidence = rows.argmax(axis=1) == labels, rows.max(axis=1)
    order = np.argsort(confidence, kind="stable")
    bins = np.split(order, [-(-images * edge // 15) for edge in range(1, 15)])
    names = ("precision", "recall", "f1")
    return {
        "accuracy": right.mean(),
        "balanced_accuracy": classes["recall"].mean(),
        "loss": -np.log(rows[range(images), labels]).mean(),
        "brier": ((rows - np.eye(rows.shape[1])[labels]) ** 2).sum() / images,
        "calibration_error": sum(abs((confidence - right)[one].sum()) for one in bins) / images,
        "auc_macro": classes["auc"].mean(),
        **{f"{name}_macro": classes[name].mean() for name in names},
        **{f"{name}_weighted": np.average(classes[name], weights=classes["images"]) for name in names},
    }


def interval(share: float, images: int) -> str:
    """Wilson's, as it is printed."""
    z = 1.959964
    middle = share + z**2 / (2 * images)
    reach = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    low, high = ((middle + side * reach) / (1 + z**2 / images) for side in (-1, 1))
    return f"{low:.3f} to {high:.3f}"


@pytest.fixture(scope="module")
def chosen(labels: dict[str, np.ndarray], answers: Answers) -> str:
    """The model that is right about most validation images."""
    return max(
        answers, key=lambda name: scores(labels["validation"], answers[name]["validation"])["accuracy"]
    )


def test_scores_and_choice(
    folder: Path, labels: dict[str, np.ndarray], answers: Answers, chosen: str
) -> None:
    for name, parts in answers.items():
        written = json.loads((folder / f"metrics/{name}.json").read_text())
        assert written.keys() == parts.keys()
        for part, rows in parts.items():
            assert written[part] == pytest.approx(
                scores(labels[part.removesuffix("_served")], rows), abs=1e-6
            )
    selection = json.loads((folder / "selection.json").read_text())
    assert f"{selection['variant']}-{selection['seed']}" == chosen
    for part, source in (("validation", "validation"), ("test", "test_served")):
        assert selection[f"{part}_accuracy"] == scores(labels[part], answers[chosen][source])["accuracy"]


def test_tables_of_the_report(
    folder: Path, labels: dict[str, np.ndarray], answers: Answers, chosen: str
) -> None:
    text = (folder / "reports/report.md").read_text()
    classes = text.split("## Results by class")[1]
    for row, found in zip(table_rows(text, "variant")[1:], table_rows(classes, "variant")[1:], strict=True):
        one = answers[f"{row[0]}-0"]
        for cell, part in zip(row[3:5], PARTS, strict=True):
            accuracy = scores(labels[part], one[part])["accuracy"]
            assert cell == f"{accuracy:.4f} ({interval(accuracy, len(labels[part]))})"
        assert found[1:] == [f"{f1:.3f}" for f1 in by_class(labels["test"], one["test"])["f1"]]
    served, counts = answers[chosen]["test_served"], confusion(labels["test"], answers[chosen]["test"])
    table = by_class(labels["test"], served)
    assert [[float(cell) for cell in row[1:]] for row in table_rows(classes, "class")[1:]] == [
        pytest.approx(row, abs=5e-4) for row in table.to_numpy().tolist()
    ]
    for one_class, other, *images in table_rows(text, "class A")[1:]:
        pair = int(one_class), int(other)
        both = [counts[pair], counts[pair[::-1]]]
        assert [int(cell) for cell in images] == [sum(both), *both]
    stated = re.findall(r"([\d.]+)% of .*? at least ([\d.]+); .*? about ([\d.]+)%", text)
    assert len(stated) == 2
    for answered, least, right in stated:
        sure = served.max(axis=1) >= float(least)
        accuracy = (served.argmax(axis=1) == labels["test"])[sure].mean()
        assert (answered, right) == (f"{100 * sure.mean():.1f}", f"{100 * accuracy:.1f}")


def test_differences_and_the_winners_curse(
    folder: Path, labels: dict[str, np.ndarray], answers: Answers, chosen: str
) -> None:
    text = (folder / "reports/report.md").read_text()
    right = {
        part: {name: 1.0 * (one[part].argmax(axis=1) == labels[part]) for name, one in answers.items()}
        for part in PARTS
    }
    images, models = len(labels["test"]), len(answers)
    rows = table_rows(text, "compared with")[1:]
    assert {row[0] for row in rows} == answers.keys() - {chosen}
    for other, points, ends, p, real in rows:
        difference = right["test"][chosen] - right["test"][other]
        error = np.sqrt((difference.var(ddof=1) + 2 / (images + 2)) / images)
        reach = studentized_range.ppf(0.95, models, images - 1) / np.sqrt(2) * error
        expected = [100 * (difference.mean() + side * reach) for side in (0, -1, 1)]
        assert [float(value) for value in (points, *ends.split(" to "))] == pytest.approx(expected, abs=0.1)
        ratio = np.sqrt(2) * abs(difference.mean()) / error
        probability = studentized_range.sf(ratio, models, images - 1)
        assert float(p.strip("\\< ")) == pytest.approx(probability, abs=2e-3)
        assert real == ("yes" if abs(difference.mean()) > reach else "no")
    noise = np.cov(list(right["validation"].values())) / len(labels["validation"])
    best = np.random.default_rng(1).multivariate_normal(np.zeros(models), noise, 100_000).max(axis=1).mean()
    [stated] = re.findall(r"about ([\d.]+) percentage points", text)
    assert float(stated) == pytest.approx(100 * best, abs=0.1)
