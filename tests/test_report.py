"""The report: its tables, its sentences, which agree with the numbers, its one page; and the figures."""

import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipeline.prepare import sample_grid
from pipeline.report import read_results, summarize
from pipeline.reporting import figures as report_figures
from pipeline.reporting import report_text
from pipeline.reporting.markdown import markdown_table, to_html
from pipeline.reporting.report_text import Results, write
from pipeline.scoring import figures, metrics
from pipeline.shared.arrays import write_arrays, write_json

CLASSES = ["cat", "dog"]
PUBLISHED = {"vgg3": 0.7678, "model_s": 0.8155, "of_nobody": 0.5}
VALIDATION = {"vgg3": 0.76, "vgg3_early_stop": 0.77, "batchnorm": 0.70}
VOID = {"meta", "img", "br", "hr"}  # elements without an end
PARAMETERS = {"vgg3": 550570, "vgg3_early_stop": 550571, "batchnorm": 359242}
SECTIONS = [
    "# Results on pets",
    "## All variants",
    "## What the comparison shows",
    "## Results by class",
    "## The champion's test images",
    "## Data",
    "## Limits",
]


def scores_of(seeds: int, validation: dict[str, float] = VALIDATION) -> pd.DataFrame:
    """What each training scored; seeds lie 0.01 apart, and test accuracy 0.02 under validation's."""
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "validation_accuracy": accuracy + 0.01 * (seed - (seeds - 1) / 2),
            "test_accuracy": accuracy - 0.02 + 0.01 * (seed - (seeds - 1) / 2),
            "parameters": PARAMETERS[variant],
            "epochs": 10 + seed,
            "training_accuracy": 0.99 if variant == "vgg3" else accuracy + 0.05,
        }
        for variant, accuracy in validation.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def history(epochs: int) -> pd.DataFrame:
    columns = ("accuracy", "val_accuracy", "loss", "val_loss")
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | {name: [0.5] * epochs for name in columns})


def per_class(classes: list[str]) -> pd.DataFrame:
    labels = np.resize(np.arange(len(classes)), 40)
    random = np.random.default_rng(0).dirichlet(np.ones(len(classes)), size=40).astype(np.float32)
    return metrics.per_class(labels, random, classes)


def results_of(
    seeds: int, validation: dict[str, float] = VALIDATION, classes: list[str] = CLASSES
) -> Results:
    scores = scores_of(seeds, validation)
    names = [f"{row.variant}-{row.seed}" for row in scores.itertuples()]
    best = max(validation, key=lambda variant: validation[variant])
    others = {variant: accuracy for variant, accuracy in validation.items() if variant != best}
    second = max(others, key=lambda variant: others[variant], default=None)
    champion: dict[str, Any] = {
        "variant": best,
        "seed": seeds - 1,
        "validation_accuracy": validation[best] + 0.005 * (seeds - 1),
        "mean_validation_accuracy": validation[best],
        "seeds": seeds,
        "test_accuracy": validation[best] - 0.02 + 0.005 * (seeds - 1),
        "runner_up": second and {"variant": second, "mean_validation_accuracy": validation[second]},
    }
    one, other = classes[1], classes[0]
    pair = {"one": one, "other": other, "images": "12", "one_as_other": "7", "other_as_one": "5"}
    return Results(
        facts={"name": "pets", "source": "cifar10", "classes": classes, "split_digest": "0123456789abcdef"},
        balance=pd.DataFrame({"class": classes, "train": 20, "validation": 5, "test": 5}),
        table=summarize(scores, PUBLISHED),
        histories={name: history(3) for name in names},
        per_class={name: per_class(classes) for name in names},
        confused=pd.DataFrame([pair]),
        champion=champion,
        diverged={},
    )


def table_rows(text: str, first: str) -> list[list[str]]:
    """The rows of the Markdown table whose first column is called so."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def sentence(text: str, title: str) -> str:
    (found,) = re.findall(rf"^- \*\*{re.escape(title)}\*\*: (.*)$", text, re.MULTILINE)
    return str(found)


def test_what_diverged_is_reported_with_its_reason() -> None:
    results = replace(results_of(1), diverged={"runaway-0": "its loss is nan in epoch 3"})
    text = write(results)
    assert "- `runaway-0` diverged, and is in no table: its loss is nan in epoch 3." in text
    assert text.count("runaway") == 1


def test_summary_has_means_and_deviations_over_seeds_best_variant_first() -> None:
    table = summarize(scores_of(3), PUBLISHED)
    assert list(table.index) == ["vgg3_early_stop", "vgg3", "batchnorm"]
    assert table["validation"].tolist() == pytest.approx([0.77, 0.76, 0.70])
    assert table["test"].tolist() == pytest.approx([0.75, 0.74, 0.68])
    assert table["validation_sd"].tolist() == pytest.approx([0.01] * 3)
    assert table["epochs"].tolist() == [11, 11, 11]
    assert table["seeds"].tolist() == [3, 3, 3]
    assert table["published"]["vgg3"] == 0.7678
    assert table["published"].isna().tolist() == [True, False, True]


def test_one_seed_has_no_deviation() -> None:
    table = summarize(scores_of(1), {})
    assert table["validation_sd"].isna().all()
    assert table["published"].isna().all()


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_sections_are_there_in_their_order(seeds: int) -> None:
    lines = write(results_of(seeds)).splitlines()
    assert [line for line in lines if line.startswith("#")] == SECTIONS


def test_champion_is_named_with_the_reason_of_the_choice() -> None:
    text = write(results_of(1))
    assert "The champion is **vgg3_early_stop** (seed 0): validation accuracy 0.7700" in text
    assert "test accuracy 0.7500." in text
    assert "chosen on validation images alone, for the highest mean validation accuracy, 0.7700" in text
    assert "over 1 seed; vgg3 comes next with 0.7600." in text
    assert "It mixes up dog and cat most: 12 images." in text


def test_only_variant_is_champion_without_a_runner_up() -> None:
    text = write(results_of(1, {"vgg3": 0.76}))
    assert "0.7600 over 1 seed.\n" in text
    assert "comes next" not in text


def test_variants_stand_by_validation_accuracy_beside_their_published_figure() -> None:
    text = write(results_of(1))
    assert "One training each." in text
    assert table_rows(text, "variant") == [
        ["variant", "parameters", "epochs", "validation", "test", "published (test)", "difference"],
        ["vgg3_early_stop", "550,571", "10", "0.7700", "0.7500", "none", "none"],
        ["vgg3", "550,570", "10", "0.7600", "0.7400", "0.7678", "-2.8"],
        ["batchnorm", "359,242", "10", "0.7000", "0.6800", "none", "none"],
    ]


def test_several_seeds_are_shown_as_mean_and_deviation() -> None:
    text = write(results_of(3))
    assert "Mean and standard deviation of 3 seeds." in text
    assert "0.7700 over 3 seeds; vgg3 comes next" in text
    assert table_rows(text, "variant")[1][2:5] == ["11", "0.7700 ± 0.0100", "0.7500 ± 0.0100"]


@pytest.mark.parametrize(
    ("early", "verdict"),
    [
        (0.77, "+1.0 points, no more than noise."),
        (0.745, "-1.5 points, no more than noise."),
        (0.775, "+1.5 points, no more than noise."),
        (0.80, "+4.0 points, better."),
        (0.70, "-6.0 points, worse."),
        (0.7754, "+1.5 points, no more than noise."),
    ],
)
def test_verdict_agrees_with_the_numbers(early: float, verdict: str) -> None:
    line = sentence(write(results_of(1, VALIDATION | {"vgg3_early_stop": early})), "Early stopping")
    assert line == f"`vgg3_early_stop` {early:.4f}, `vgg3` 0.7600 on validation images: {verdict}"


def test_comparison_needs_both_variants() -> None:
    text = write(results_of(1, {"vgg3_early_stop": 0.77, "batchnorm": 0.7}))
    assert "**Early stopping**" not in text
    assert "**Size**" not in text


def test_widest_and_narrowest_gap_are_told() -> None:
    line = sentence(write(results_of(1)), "Over-fitting")
    assert "`vgg3` ends with training accuracy 0.990 and validation accuracy 0.760, the widest gap" in line


def test_size_is_the_rank_correlation_with_accuracy() -> None:
    line = sentence(write(results_of(1)), "Size")
    assert line.endswith("of parameters and validation accuracy is +1.00.")


def test_variants_of_one_size_have_no_rank_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    for variant in PARAMETERS:
        monkeypatch.setitem(PARAMETERS, variant, 550570)
    assert "nan" not in write(results_of(1))


def test_f1_stands_by_class_for_every_model() -> None:
    results = results_of(3)
    by_class = table_rows(write(results).split("## Results by class")[1], "variant")
    assert by_class[0] == ["variant", "cat", "dog"]
    assert [row[0] for row in by_class[1:]] == list(results.per_class)
    assert by_class[1][1] == f"{results.per_class['vgg3-0']['f1']['cat']:.3f}"


def test_hardest_classes_come_first() -> None:
    classes = ["a", "b", "c", "d"]
    results = results_of(1, classes=classes)
    table = per_class(classes).assign(f1=[0.9, 0.3, 0.5, 0.1])
    line = write(replace(results, per_class=dict.fromkeys(results.per_class, table)))
    assert "Hardest over all models: d, b, c." in line


def test_data_names_the_split_and_its_balance() -> None:
    text = write(results_of(1))
    assert "digest `0123456789ab`" in text
    assert table_rows(text, "class")[1:] != []
    assert "| cat | 20 | 5 | 5 |" in text


class Page(HTMLParser):
    """What a page holds: its title and text, the sources of its images, the cells of each row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.title, self.text = "", ""
        self.sources: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        assert not self.open

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.sources += [values["src"] or ""] if "src" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "title" in self.open:
            self.title += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the figures that the report shows."""
    folder = tmp_path_factory.mktemp("reports")
    for name in re.findall(r"\]\((.+?)\)", write(results_of(1))):
        Figure(figsize=(1, 1)).savefig(folder / name)
    return folder


def test_page_opens_by_itself(reports: Path) -> None:
    page = Page(to_html(write(results_of(1)), reports))
    assert page.title == "Results on pets"
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,iVBORw0KGgo") for source in page.sources)
    assert not page.links


def test_page_shows_the_tables_as_tables(reports: Path) -> None:
    page = Page(to_html(write(results_of(3)), reports))
    assert ["vgg3_early_stop", "550,571", "11", "0.7700 ± 0.0100"] in [row[:4] for row in page.rows]
    assert ["dog", "cat", "12", "7", "5"] in page.rows
    assert ["cat", "20", "5", "5"] in page.rows


@pytest.mark.parametrize("name", ["a|b", "a*b*c", "_a_", "<b>a", "a&amp;b", "`a`", "[a](b)", "a\\b", "a\\|b"])
def test_cell_is_shown_as_it_is_written(name: str, tmp_path: Path) -> None:
    text = f"# Title\n\n{markdown_table(pd.DataFrame({'class': [name], 'test': ['5']}))}\n"
    assert Page(to_html(text, tmp_path)).rows == [["class", "test"], [name, "5"]]


@pytest.mark.parametrize("name", ["variant", "a|b", "*a*"])
def test_report_shows_every_class_whatever_its_name(name: str, reports: Path) -> None:
    page = Page(to_html(write(results_of(1, classes=[name, "dog"])), reports))
    assert ["variant", name, "dog"] in [row[:3] for row in page.rows]
    assert [name, "20", "5", "5"] in page.rows
    assert f"It mixes up dog and {name} most: 12 images." in page.text
    assert re.search(rf"Hardest over all models: (dog, )?{re.escape(name)}", page.text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with all that the report reads; one of its classes is called NA."""
    monkeypatch.chdir(tmp_path)
    classes = ["NA", "dog"]
    results = results_of(1, classes=classes)
    write_arrays(Path("data/prepared/split"), {}, **results.facts)
    index = [{"variant": name, "seed": 0} for name in ("vgg3", "vgg3_early_stop")]
    write_json(Path("recipes/_index.json"), index)
    results.balance.to_csv("data/prepared/class_balance.csv", index=False)
    write_json(Path("champion.json"), results.champion)
    for name, accuracy in {"vgg3_early_stop-0": 0.77, "vgg3-0": 0.76, "former-0": 0.9}.items():
        scores = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.02}}
        write_json(Path("metrics") / f"{name}.json", scores)
        ended = {"parameters": 7, "stopped_epoch": 3, "kept_val_accuracy": accuracy}
        record = {"tags": {"status": "trained"}, "params": {}, "metrics": ended}
        write_json(Path("models") / name / "training.json", record)
        history(3).to_csv(Path("models") / name / "history.csv", index=False)
        Path("evaluation", name).mkdir(parents=True)
        per_class(classes).to_csv(Path("evaluation") / name / "per_class.csv")
        results.confused.to_csv(Path("evaluation") / name / "most_confused.csv", index=False)
    return tmp_path


def test_another_dataset_has_no_word_of_cifar10(project: Path) -> None:
    facts = results_of(1).facts | {"source": "directory"}
    write_arrays(project / "data/prepared/split", {}, **facts)
    text = write(read_results({"vgg3": 0.7678}))
    assert not re.search("published|document|CIFAR|2000s", text)


@pytest.mark.usefixtures("project")
def test_report_reads_the_trainings_that_params_name_and_no_other() -> None:
    results = read_results({"vgg3_early_stop": 0.7711, "vgg3": 0.7678})
    assert list(results.table.index) == ["vgg3_early_stop", "vgg3"]
    assert results.table["published"].tolist() == [0.7711, 0.7678]
    assert results.table["training_accuracy"].tolist() == [0.5, 0.5]
    assert list(results.per_class) == ["vgg3-0", "vgg3_early_stop-0"]
    text = write(results)
    assert "| NA | 20 | 5 | 5 |" in text
    assert "It mixes up dog and NA most" in text
    assert table_rows(text.split("## Results by class")[1], "variant")[0] == ["variant", "NA", "dog"]


def assert_drawn(figure: Figure, path: Path) -> None:
    """The figure can be written as a PNG that holds more than one colour."""
    figure.savefig(path, dpi=20)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 0
    assert height > 0
    assert len(content) > 300


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_are_drawn(epochs: int, tmp_path: Path) -> None:
    assert_drawn(figures.training_curves(history(epochs), "vgg3-0"), tmp_path / "one.png")
    all_histories = {f"variant-{number}": history(epochs) for number in range(22)}
    assert_drawn(report_figures.all_curves(all_histories), tmp_path / "all.png")


def test_losses_rise_upwards_even_where_none_is_small() -> None:
    high = history(2).assign(val_loss=[5.0, 4.0])
    bottom, top = report_figures.all_curves({"vgg3-0": high}).axes[1].get_ylim()
    assert bottom < 4 < top


def test_loss_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    diverged = history(2).assign(val_loss=np.nan)
    assert_drawn(report_figures.all_curves({"vgg3-0": diverged, "vgg3-1": history(2)}), tmp_path / "all.png")


@pytest.mark.parametrize("seeds", [1, 3])
def test_accuracies_are_drawn_with_and_without_published_figures(seeds: int, tmp_path: Path) -> None:
    assert_drawn(report_figures.accuracies(summarize(scores_of(seeds), PUBLISHED)), tmp_path / "with.png")
    assert_drawn(report_figures.accuracies(summarize(scores_of(seeds), {})), tmp_path / "without.png")


@pytest.mark.parametrize("count", [2, 12])
def test_figures_of_a_few_and_of_many_classes_are_drawn(count: int, tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(count)]
    random = np.random.default_rng(0)
    labels = np.resize(np.arange(count), 60)
    predicted = random.dirichlet(np.ones(count), size=60).astype(np.float32)
    images = random.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    counts = metrics.confusion(labels, predicted, classes)
    points = metrics.roc_points(labels, predicted, classes)
    areas = metrics.per_class(labels, predicted, classes)["auc"]
    drawn = [
        sample_grid(images, labels, classes),
        figures.confusion_heat_map(counts, "confusion"),
        figures.roc_curves(points, areas, "roc"),
        figures.predictions(images[:2], predicted[:2], classes, ["one", "other"], [0, None], "examples"),
    ]
    for number, figure in enumerate(drawn):
        assert_drawn(figure, tmp_path / f"{number}.png")


def test_sample_grid_has_a_row_for_a_single_image(tmp_path: Path) -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    assert_drawn(sample_grid(image, np.array([0]), ["cat"]), tmp_path / "samples.png")


def test_noise_is_printed_as_it_is_judged() -> None:
    assert f"up to {100 * report_text.NOISE:.1f} points are noise" in write(results_of(1))
