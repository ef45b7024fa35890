"""The report's figures: nothing is cut off, with few or many variants and classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.shared import metrics
from pipeline.shared.served_predictor import Temperature
from pipeline.shared.temperature import scaled
from pipeline.stages.evaluate import model_figures
from pipeline.stages.prepare.stage import sample_grid
from pipeline.stages.report import comparison_figures as report_figures
from pipeline.stages.report.results import summarize
from tests.example_results import COUNTS, PUBLISHED, history, scores_of


def drawn(figure: Figure, folder: Path) -> None:
    """Write a figure as a PNG, and look at its pixels on a white and on a black page."""
    figure.savefig(folder / "figure.png", dpi=20)
    pixels = imread(folder / "figure.png")
    assert max(pixels.shape) < 400  # 20 inches
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    assert np.median(opacity) < 1
    for page in (0, 1):
        assert (opacity * colours + (1 - opacity) * page).std() > 0.01


def test_curves_are_drawn(tmp_path: Path) -> None:
    many = {f"v{n}-0": history(1) for n in range(14)} | {"v0-1": history(5)}
    compared = report_figures.all_curves(
        many | {"diverged-0": history(2).assign(val_accuracy=np.nan)}, "accuracy"
    )
    for figure in (model_figures.training_curves(history(5), "vgg3-0"), compared):
        drawn(figure, tmp_path)
    assert [title for axis in compared.axes if (title := axis.get_title())] == [
        *(f"v{n}" for n in range(14)),
        "diverged",
    ]


@pytest.mark.parametrize(("seeds", "published"), [(1, PUBLISHED), (3, {})])
def test_accuracies_are_drawn(seeds: int, published: dict[str, float], tmp_path: Path) -> None:
    drawn(report_figures.accuracies(summarize(scores_of(seeds), published), COUNTS), tmp_path)


def test_frontier_joins_the_variants_that_none_beats_in_both(tmp_path: Path) -> None:
    table = summarize(scores_of(3), {})  # of vgg3_early_stop, vgg3 and batchnorm, the best first
    frontier = report_figures.frontier(table.assign(minutes=[13.0, 35.0, 0.4]))
    drawn(frontier, tmp_path)
    assert list(np.asarray(frontier.axes[0].lines[0].get_xdata())) == [0.4, 13.0]


@pytest.mark.parametrize("count", [2, 12, 150])
def test_figures_of_few_and_of_many_classes_are_drawn(count: int, tmp_path: Path) -> None:
    classes = [f"${number}_to_$\n" for number in range(count)]
    random = np.random.default_rng(0)
    labels = np.resize(np.arange(count), 2 * count)
    predicted = random.dirichlet(np.ones(count), size=len(labels)).astype(np.float32)
    images = random.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    drawn(sample_grid(images, labels, classes), tmp_path)
    drawn(model_figures.predictions(images[:2], predicted[:2], classes, ["$1_$", "b"], [0, None]), tmp_path)
    drawn(model_figures.confusion_heat_map(metrics.confusion(labels, predicted, classes), "a $1_$"), tmp_path)
    areas = metrics.per_class(labels, predicted, classes)["auc"]
    drawn(model_figures.roc_curves(metrics.roc_points(labels, predicted, classes), areas, "roc"), tmp_path)


@pytest.mark.parametrize("certain", [0.1, 0.9, 0.97])
def test_the_curves_of_a_good_and_of_a_bad_model_fill_their_axes(certain: float, tmp_path: Path) -> None:
    """The best model makes a few mistakes, the worst one guesses."""
    random = np.random.default_rng(0)
    labels = np.resize(np.arange(3), 300)
    right = np.eye(3)[np.where(random.random(300) < certain, labels, random.integers(0, 3, 300))]
    predicted = certain * right + (1 - certain) * random.dirichlet(np.ones(3), 300)
    areas = metrics.per_class(labels, predicted, list("abc"))["auc"]
    effect = metrics.temperature_effect(labels, predicted, Temperature(1.0, 1.0, 1.0))
    for figure in (
        model_figures.roc_curves(metrics.roc_points(labels, predicted, list("abc")), areas, "roc"),
        model_figures.reliability(metrics.reliability(labels, predicted), effect, "reliability"),
    ):
        drawn(figure, tmp_path)
        [axis] = figure.axes
        shown = axis.viewLim
        lines = [line.get_xydata() for line in axis.lines if line.get_label() != "guessing"]
        points = np.concatenate(lines)
        visible = points[(points[:, 0] >= shown.xmin) & (points[:, 0] <= shown.xmax)][:, 1]
        assert shown.ymin < visible.min() <= visible.max() < shown.ymax
        assert visible.min() - shown.ymin < 0.5 * shown.height


def test_over_confidence_is_told_from_chance() -> None:
    """Of a model whose probabilities are right, and of the same with other temperatures."""
    random, verdicts = np.random.default_rng(0), []
    for _ in range(200):
        honest = random.dirichlet(np.ones(3), 400)
        labels = (honest.cumsum(axis=1) > random.random((400, 1))).argmax(axis=1)
        verdicts.append(
            [model_figures.bias(metrics.reliability(labels, scaled(honest, by))) for by in (1, 0.5, 2)]
        )
    right, over, under = zip(*verdicts, strict=True)
    assert right.count("") > 200 - 20  # 10 verdicts are expected, with an sd of 3
    assert over.count(": over-confident") > 190
    assert under.count(": under-confident") > 190


def test_a_thousand_classes_take_no_larger_figure(tmp_path: Path) -> None:
    counts = pd.DataFrame(np.eye(1010, dtype=int), columns=[str(number) for number in range(1010)])
    drawn(model_figures.confusion_heat_map(counts, "confusion"), tmp_path)
