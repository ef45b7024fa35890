"""The report: its tables, its sentences, which agree with the numbers, its one page; and the figures."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.champion.selection import choose
from pipeline.prepare import sample_grid
from pipeline.reporting import card
from pipeline.reporting import figures as report_figures
from pipeline.reporting.findings import NOISE, confusions, hardest
from pipeline.reporting.markdown import literal, markdown_table, to_html
from pipeline.reporting.report_text import write
from pipeline.reporting.results import Results, read_results, summarize
from pipeline.reporting.statistics import Resampled
from pipeline.scoring import figures, metrics, temperature
from pipeline.shared.arrays import write_arrays, write_json
from pipeline.shared.paths import PREDICTIONS, PREPARED
from tests.conftest import refusal

CLASSES = ["cat", "dog"]
COUNTS = {"train": 45000, "validation": 5000, "test": 10000}
PUBLISHED = {"vgg3": 0.7678, "model_s": 0.8155, "of_nobody": 0.5}
VALIDATION = {"vgg3": 0.76, "vgg3_early_stop": 0.77, "batchnorm": 0.70}
PARAMETERS = {"vgg3": 550570, "vgg3_early_stop": 550571}
ODD = r"NA a|b a*b*c _a_ __b__ a__ <b>a a&amp;b `a` [a](b) a\b a\|b $5_to_$10 ~~a~~ ![a](b)"
ODD_NAMES = [*ODD.split(), "variant", "a\nb", " a "]


def diagnosis_of(name: str) -> dict[str, pd.DataFrame]:
    """What `pipeline.diagnose` found with the model of this name."""
    copies = {"part": ["test", "validation"], "image": [3, 4], "of_part": "train", "of_image": [5, 6]}
    falling = {"corruption": ["noise", "noise", "blur", "blur"], "level": [0, 5, 0, 5]}
    return {
        "near_duplicates": pd.DataFrame(copies | {"similarity": 0.95}),
        "label_errors": pd.DataFrame({"image": [5], "label": 0, "predicted": 1, "probability": 0.01}),
        "robustness": pd.DataFrame(
            falling | {"model": name, "strength": 1.0, "accuracy": [0.75, 0.25, 0.75, 0.5], "images": 2000}
        ),
    }


def scores_of(seeds: int, validation: dict[str, float] = VALIDATION) -> pd.DataFrame:
    """What each training scored; seeds lie 0.01 apart, and test accuracy 0.02 under validation's."""
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "validation_accuracy": accuracy + 0.01 * (seed - (seeds - 1) / 2),
            "test_accuracy": accuracy - 0.02 + 0.01 * (seed - (seeds - 1) / 2),
            "views_accuracy": 0.9 if variant == "vgg3" else float("nan"),
            "parameters": PARAMETERS.get(variant, 359242),
            "epochs": 10 + seed,
            "training_accuracy": 0.99 if variant == "vgg3" else accuracy + 0.01,
        }
        for variant, accuracy in validation.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def history(epochs: int) -> pd.DataFrame:
    columns = ("accuracy", "val_accuracy", "loss", "val_loss")
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | {name: [0.5] * epochs for name in columns})


def per_class(classes: list[str]) -> pd.DataFrame:
    labels = np.resize(np.arange(len(classes)), 4 * len(classes))
    random = np.random.default_rng(0).dirichlet(np.ones(len(classes)), size=len(labels)).astype(np.float32)
    return metrics.per_class(labels, random, classes)


def pairs_of(*images: int) -> pd.DataFrame:
    """Pairs of classes a and b, c and d ... with so many confused images."""
    names = [chr(ord("a") + number) for number in range(2 * len(images))]
    counts = {"images": images, "one_as_other": images, "other_as_one": 0}
    return pd.DataFrame({"one": names[::2], "other": names[1::2]} | counts)


def results_of(
    seeds: int = 1, validation: dict[str, float] = VALIDATION, classes: list[str] = CLASSES, **facts: Any
) -> Results:
    scores = scores_of(seeds, validation)
    names = [f"{row.variant}-{row.seed}" for row in scores.itertuples()]
    known: dict[str, Any] = {"name": "pets", "source": "cifar10", "classes": classes}
    known |= {"split_digest": "0123456789abcdef", "duplicates": {"training_and_validation": 0, "test": 0}}
    known |= {
        "image_shape": [32, 32, 3],
        "counts": {"train": 45000, "validation": 5000, "test": 10000},
    } | facts
    return Results(
        facts=known,
        balance=pd.DataFrame({"class": classes, "train": 20, "validation": 5, "test": 5}),
        table=summarize(scores, PUBLISHED),
        settings={variant: {"optimizer": "adam", "batch_size": 32} for variant in validation},
        histories={name: history(3) for name in names},
        per_class={name: per_class(classes) for name in names},
        confused=pairs_of(12).assign(one=classes[1], other=classes[0]),
        champion=(chosen := choose(scores) | PROMOTED),
        diverged={},
        diagnosis=diagnosis_of(f"{chosen['variant']}-{chosen['seed']}"),
        **{part: Resampled(right(scores, part, known["counts"][part])) for part in ("validation", "test")},
    )


def right(scores: pd.DataFrame, part: str, images: int) -> pd.DataFrame:
    """Which images each model gets right, so many that its accuracy is that of the scores."""
    random = np.random.default_rng(0)
    columns = {
        (row["variant"], row["seed"]): random.permutation(images) < round(row[f"{part}_accuracy"] * images)
        for _, row in scores.iterrows()
    }
    return pd.DataFrame(columns).rename_axis(columns=["variant", "seed"])


def table_rows(text: str, first: str) -> list[list[str]]:
    """The rows of the Markdown table whose first column is called so."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def sentence(results: Results, title: str) -> str | None:
    found = re.search(rf"^- \*\*{title}\*\*: (.*)$", write(results), re.MULTILINE)
    return found and found[1]


def test_all_sections_are_there_in_their_order_and_what_diverged_with_its_reason() -> None:
    sections = [
        "Results on pets",
        "All variants",
        "Which differences are real",
        "What the comparison shows",
        "Results by class",
    ]
    sections += ["Test images of vgg3_early_stop-0", "Robustness", "Data", "Limits"]
    text = write(replace(results_of(), diverged={"runaway-0": "its loss is nan in epoch 3"}))
    assert re.findall("^##? (.*)$", text, re.MULTILINE) == sections
    assert "- `runaway-0` diverged, and is in no table: its loss is nan in epoch 3." in text
    assert text.count("runaway") == 1


def test_what_diagnose_found_is_told_with_its_effect() -> None:
    results = results_of()
    text = write(results)
    assert "1 of 10,000 test images and 1 of 5,000 validation images closely resemble" in text
    assert "That is many" not in text
    others = results.test.right["vgg3_early_stop", 0].drop(3)
    assert f"has an accuracy of {others.mean():.4f} instead of 0.7500" in text
    assert "**Suspicious labels**: 1 of 10,000, for which `vgg3_early_stop-0` confidently" in text
    assert "is 0.750 on the first 2,000 test images" in text
    assert "lowest with noise, 0.250, and highest with blur, 0.500." in text


SECOND = {"variant": "second", "seed": 2, "validation_accuracy": 0.9, "test_accuracy": 0.89}
SCORED = "**vgg3_early_stop** (seed 0): validation accuracy 0.7700, test accuracy 0.7500.\n"
BEST = f"The best model of this comparison is {SCORED}"
STILL = "The champion is still **second** (seed 2): validation accuracy"
PROMOTED = {"promoted": True, "reason": "best", "standing": None}
REFUSED = {"promoted": False, "reason": "it is worse"}


@pytest.mark.parametrize(
    ("answer", "begin"),
    [
        ({}, f"The champion is {SCORED}It was promoted: best.\nIt was chosen"),
        (REFUSED | {"standing": SECOND}, f"{BEST}**It was not promoted**: it is worse.\n{STILL}"),
        (REFUSED | {"standing": None}, f"{BEST}**It was not promoted**: it is worse.\nThere is no champion."),
    ],
)
def test_report_says_what_the_registry_says(answer: dict[str, Any], begin: str) -> None:
    results = results_of()
    text = write(replace(results, champion=results.champion | answer))
    assert text.startswith(f"# Results on pets\n\n{begin}")


@pytest.mark.parametrize(
    ("results", "chosen"),
    [
        (results_of(), "0.7700 over 1 seed; vgg3 comes next with 0.7600."),
        (results_of(3), "0.7700 over 3 seeds; vgg3 comes next with 0.7600."),
        (results_of(1, {"vgg3": 0.76}), "0.7600 over 1 seed."),
        (results_of(1, {"a": 0.7, "b": 0.7}), "0.7000 over 1 seed; b has the same, and comes later in "),
    ],
)
def test_reason_of_the_choice_is_given(results: Results, chosen: str) -> None:
    reason = "It was chosen on validation images alone, for the highest mean validation accuracy, "
    assert f"{reason}{chosen}" in write(results)


def test_variants_stand_by_validation_accuracy_beside_their_published_figure() -> None:
    text = write(results_of())
    assert (
        "Accuracy on 5,000 validation and 10,000 test images. One training each, with the 95 % interval"
        in text
    )
    assert f"up to {100 * NOISE:.1f} points are noise" in text
    assert ["; ".join(row) for row in table_rows(text, "variant")] == [
        "variant; parameters; epochs; validation; test; with views; published (test); difference",
        "vgg3_early_stop; 550,571; 10; 0.7700 (0.758 to 0.781); 0.7500 (0.741 to 0.758); none; none; none",
        "vgg3; 550,570; 10; 0.7600 (0.748 to 0.772); 0.7400 (0.731 to 0.749); 0.9000; 0.7678; -2.8",
        "batchnorm; 359,242; 10; 0.7000 (0.687 to 0.713); 0.6800 (0.671 to 0.689); none; none; none",
    ]


def test_figures_of_several_seeds_are_means_and_deviations() -> None:
    results = results_of(3)
    text = write(results)
    assert "Mean and standard deviation of 3 seeds." in text
    assert table_rows(text, "variant")[1][2:5] == ["11", "0.7700 ± 0.0100", "0.7500 ± 0.0100"]
    header, *rows = table_rows(text.split("## Results by class")[1], "variant")
    assert header == ["variant", "cat", "dog"]
    assert [row[0] for row in rows] == list(VALIDATION)
    mean = np.mean([results.per_class[f"vgg3-{seed}"].loc["cat", "f1"] for seed in range(3)])
    assert rows[0][1] == f"{mean:.3f}"


def test_a_variant_with_fewer_seeds_than_the_others_is_explained() -> None:
    results = results_of(3)
    table = results.table.assign(seeds=[1, 3, 3], test_sd=[np.nan, 0.01, 0.01])
    text = write(replace(results, table=table))
    assert (
        "Mean and standard deviation of 3 seeds. Some trainings diverged: their variants have fewer" in text
    )


@pytest.mark.parametrize(
    ("early", "verdict"),
    [(0.77, "which may be chance."), (0.80, "better."), (0.70, "worse.")],
)
def test_verdict_agrees_with_the_numbers(early: float, verdict: str) -> None:
    found = sentence(results_of(1, VALIDATION | {"vgg3_early_stop": early}), "Early stopping")
    assert found is not None
    change = f"{100 * (early - 0.76):+.1f} points ("
    begin = f"`vgg3_early_stop` {early:.4f}, `vgg3` 0.7600 on validation images: {change}"
    assert found.startswith(begin)
    assert found.endswith(f"), {verdict}")


def test_real_differences_are_told_from_chance() -> None:
    close = {"vgg3": 0.765, "vgg3_early_stop": 0.77, "batchnorm": 0.70, "same": 0.77}
    for seeds in (1, 3):
        text = write(results_of(seeds, close)).split("## Which differences are real")[1].split("\n##")[0]
        verdict = (
            "On test images `vgg3_early_stop` is better than `batchnorm`. Between `vgg3_early_stop` and "
        )
        assert f"{verdict}`same` and `vgg3` the difference may be chance. It would take about " in text
        assert ("With one seed" in text, "seeds of each." in text) == (seeds == 1, seeds > 1)
        rows = {row[0]: row[1:] for row in table_rows(text, "against")[1:]}
        assert rows["batchnorm"][0] == "+7.0"
        assert [rows[name][-1] for name in ("batchnorm", "same", "vgg3")] == ["yes", "no", "no"]


def test_overfitting_is_named_only_where_it_is() -> None:
    assert sentence(results_of(), "Over-fitting") == (
        "training accuracy exceeds the interval of validation accuracy for 1 of 3 variants. "
        "The widest gap is that of `vgg3`: 0.990 in the last epoch, 0.760 on validation images."
    )
    others = results_of(1, {"a": 0.7, "b": 0.6})
    expected = "no training accuracy exceeds the interval of the validation accuracy."
    assert sentence(others, "Over-fitting") == expected
    assert sentence(others, "Early stopping") is None


def test_size_is_a_rank_correlation_of_enough_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"v{number}": 0.5 + 0.01 * number for number in range(10)}
    assert sentence(results_of(), "Size") is None
    assert sentence(results_of(1, many), "Size") is None  # all of one size
    for number, variant in enumerate(many):
        monkeypatch.setitem(PARAMETERS, variant, number)
    expected = "the rank correlation of parameters and validation accuracy is +1.00 (10 variants)."
    assert sentence(results_of(1, many), "Size") == expected


@pytest.mark.parametrize(
    ("f1", "expected"),
    [
        ([0.9, 0.3, 0.5, 0.1, 0.8, 0.9, 0.9], "mean over all variants: d (0.100), b (0.300), c (0.500)."),
        ([0.9, 0.3], "mean over all variants: b (0.300)."),
        ([0.9, 0.3, 0.3, 0.8, 0.9], "mean over all variants: b (0.300), c (0.300)."),
        ([0.9, 0.9, 0.9], "No class is clearly the hardest."),
    ],
)
def test_hardest_classes_are_few_or_none(f1: list[float], expected: str) -> None:
    assert hardest(pd.DataFrame([f1], columns=list("abcdefg")[: len(f1)])).endswith(expected)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ((12, 3), "It confuses these most: a and b, 12 images."),
        ((1, 0), "It confuses these most: a and b, 1 image."),
        ((2, 2, 1), "It confuses these most: a and b; c and d, 2 images each."),
        ((2, 2, 2, 2), "No pair of classes stands out: several are confused in 2 of the images each."),
        ((0, 0), "It confuses no two classes."),
    ],
)
def test_ties_are_not_called_most(images: tuple[int, ...], expected: str) -> None:
    assert confusions(pairs_of(*images)) == expected


def test_tables_of_a_hundred_classes_show_the_hardest_ten() -> None:
    results = results_of(classes=[f"class {number}" for number in range(100)])
    text = write(results)
    by_class = table_rows(text.split("## Results by class")[1], "variant")
    assert by_class[0][1:] == [str(name) for name in results.f1.mean().nsmallest(10).index]
    assert len(table_rows(text, "class")) == 11
    assert text.count("the hardest 10 of 100 classes") == 2
    assert table_rows(text.split("## Data")[1], "images")[1:] == [
        [what, "20", "5", "5"] for what in ("min", "median", "max")
    ]


def test_data_says_what_was_checked() -> None:
    text = write(results_of(duplicates={"training_and_validation": 0, "test": 1}))
    assert "digest `0123456789ab`" in text
    assert (
        "The pixels of all images were compared: 0 validation images also in training, "
        "1 test image also in training or validation.\n"
    ) in text
    assert "| cat | 20 | 5 | 5 |" in text


def parsed(page: str) -> tuple[Element, list[list[str]]]:
    """A page, and the cells of the rows of its tables."""
    tree = fromstring(page)
    return tree, [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the figures that the report shows."""
    folder = tmp_path_factory.mktemp("reports")
    for name in re.findall(r"\]\((.+?)\)", write(results_of())):
        Figure(figsize=(1, 1)).savefig(folder / name)
    return folder


def test_page_opens_by_itself_and_shows_tables_as_tables(reports: Path) -> None:
    page, rows = parsed(to_html(write(results_of(3)), reports, "Results on <pets>"))
    assert page.findtext("head/title") == "Results on <pets>"
    sources = [image.attrib["src"] for image in page.iter("img")]
    assert len(sources) == 10
    assert all(source.startswith("data:image/png;base64,iVBORw0KGgo") for source in sources)
    assert not [*page.iter("a"), *page.iter("link")]
    assert [script.attrib for script in page.iter("script")] == [{}]
    assert ["vgg3_early_stop", "550,571", "11", "0.7700 ± 0.0100"] in [row[:4] for row in rows]
    assert ["dog", "cat", "12", "12", "0"] in rows


@pytest.mark.system
def test_a_table_sorts_and_a_figure_enlarges(reports: Path, page: Any) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    numbers = ["1,000,000", "66,170", "+0.5", "-2.8"]
    text = markdown_table(pd.DataFrame({"number": numbers[::-1]})) + "\n\n" + write(results_of())
    page.set_content(to_html(text, reports, "Results"))
    page.get_by_role("columnheader", name="number").click()
    assert page.locator("table").first.locator("tbody td").all_inner_texts() == numbers
    table = page.locator("table").nth(1)
    best = sorted(VALIDATION, key=VALIDATION.__getitem__, reverse=True)
    for order in (best, best[::-1]):
        table.get_by_role("columnheader", name="validation").click()
        assert table.locator("tbody td:first-child").all_inner_texts() == order
    image = page.locator("img").first
    small = image.bounding_box()["width"]
    image.click()
    assert image.bounding_box()["width"] > 2 * small
    image.click()
    assert image.bounding_box()["width"] == small
    assert all(url.startswith("data:") for url in requested)


def test_names_are_shown_as_they_are_written(reports: Path) -> None:
    table = markdown_table(pd.DataFrame({"class": ODD_NAMES, "test": "5"}))
    named = "\n\n".join(f"The class {literal(name)}, again." for name in ODD_NAMES)
    page, rows = parsed(to_html(f"# Title\n\n{table}\n\n{named}\n", reports, ""))
    assert rows == [["class", "test"], *([name, "5"] for name in ODD_NAMES)]
    paragraphs = ["".join(paragraph.itertext()) for paragraph in page.iter("p")]
    assert paragraphs == [f"The class {name}, again." for name in ODD_NAMES]
    page, rows = parsed(to_html(write(results_of(classes=ODD_NAMES)), reports, ""))
    assert [row[0] for row in rows if row[1:] == ["20", "5", "5"]] == ODD_NAMES
    pair = f"{ODD_NAMES[1]} and {ODD_NAMES[0]}"
    assert f"It confuses these most: {pair}, 12 images." in "".join(page.itertext())


@pytest.fixture
def project(workplace: Path) -> Path:
    """A project with all that the report reads; one of its classes is called NA."""
    classes = ["NA", "dog"]
    results = results_of(classes=classes, counts={"train": 900, "validation": 100, "test": 100})
    labels = np.arange(100) % 2
    for part in ("validation", "test"):
        write_arrays(PREPARED / part, {"labels": labels})
    write_arrays(Path("data/prepared/split"), {}, **results.facts)
    write_json(Path("recipes/_index.json"), [{"variant": v, "seed": 0} for v in ("vgg3", "vgg3_early_stop")])
    results.balance.to_csv("data/prepared/class_balance.csv", index=False)
    write_json(Path("champion.json"), results.champion)
    for name, accuracy in {"vgg3_early_stop-0": 0.77, "vgg3-0": 0.76, "former-0": 0.9}.items():
        scores = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.02}}
        write_json(Path("metrics") / f"{name}.json", scores)
        found = {
            part: np.where(np.arange(100) < 100 * of["accuracy"], labels, 1 - labels)
            for part, of in scores.items()
        }
        write_arrays(
            PREDICTIONS / name, {part: np.eye(2, dtype=np.float32)[one] for part, one in found.items()}
        )
        ended = {"parameters": 7, "stopped_epoch": 3, "validation/accuracy": accuracy}
        record = {"tags": {"status": "trained"}, "params": {}, "metrics": ended}
        write_json(Path("models") / name / "training.json", record)
        history(3).to_csv(Path("models") / name / "history.csv", index=False)
        Path("evaluation", name).mkdir(parents=True)
        per_class(classes).to_csv(Path("evaluation") / name / "per_class.csv")
        results.confused.to_csv(Path("evaluation") / name / "most_confused.csv", index=False)
        right = np.eye(2)[labels] * 0.8 + 0.1
        temperature.effect(0.5, labels, right).to_csv(
            Path("evaluation") / name / "temperature.csv", index=False
        )
    Path("diagnosis").mkdir()
    for title, table in diagnosis_of("vgg3_early_stop-0").items():
        table.to_csv(Path("diagnosis") / f"{title}.csv", index=False)
    return workplace


@pytest.mark.usefixtures("project")
def test_report_reads_the_trainings_that_params_name_and_no_other() -> None:
    results = read_results({"vgg3_early_stop": 0.7711, "vgg3": 0.7678})
    assert list(results.table.index) == ["vgg3_early_stop", "vgg3"]
    assert results.table["published"].tolist() == [0.7711, 0.7678]
    assert results.table["training_accuracy"].tolist() == [0.5, 0.5]
    assert list(results.per_class) == ["vgg3-0", "vgg3_early_stop-0"]
    assert results.test.right.mean().to_dict() == {("vgg3", 0): 0.74, ("vgg3_early_stop", 0): 0.75}
    assert "| NA | 20 | 5 | 5 |" in write(results)
    write_arrays(Path("data/prepared/split"), {}, **results.facts | {"source": "directory"})
    assert not re.search("published|document|CIFAR|2000s", write(read_results({"vgg3": 0.7678})))


@pytest.mark.usefixtures("project")
def test_the_card_of_the_chosen_model_has_its_figures_and_is_one_of_hugging_face() -> None:
    results = read_results({})
    text = card.write(results)
    data = ModelCard(text).data.to_dict()
    [model] = data["model-index"]
    assert model["name"] == "vgg3_early_stop-0"
    assert model["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.75}]
    assert (data["library_name"], data["datasets"]) == ("keras", ["pets"])
    assert "0.7500 on 100 test images (95 % interval 0.657 to 0.825)" in text
    assert "**Calibration**: error 0.100, Brier score 0.020" in text
    assert card.summary(results) in text
    assert table_rows(text, "class")[1][0] == "NA"


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        ("champion.json", '"seed": 0', '"seed": 7', "vgg3_early_stop-7: has no scores"),
        ("evaluation/vgg3-0/per_class.csv", "f1", "F1", "f1: missing"),
        ("evaluation/vgg3-0/per_class.csv", "dog", "cow", "its classes are not those of data/prepared/split"),
        ("evaluation/vgg3_early_stop-0/most_confused.csv", "12", "many", "cannot be read"),
        ("diagnosis/label_errors.csv", "label,", "lable,", "label: missing"),
    ],
)
def test_a_broken_edit_is_one_line(project: Path, path: str, old: str, new: str, problem: str) -> None:
    text = (project / path).read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    (project / path).write_text(edited)
    assert re.match(f"{re.escape(path)}: .*{problem}", refusal(read_results, {}))


def drawn(figure: Figure, folder: Path) -> None:
    """Write a figure as a PNG, and look at its pixels."""
    figure.savefig(folder / "figure.png", dpi=20)
    pixels = imread(folder / "figure.png")
    assert max(pixels.shape) < 400  # 20 inches
    assert pixels.std() > 0.01


def test_curves_are_drawn(tmp_path: Path) -> None:
    many = {f"v{n}-0": history(1) for n in range(14)} | {"v0-1": history(5)}
    compared = report_figures.all_curves(many | {"diverged-0": history(2).assign(val_accuracy=np.nan)})
    for figure in (figures.training_curves(history(5), "vgg3-0"), compared):
        drawn(figure, tmp_path)
    assert [title for axis in compared.axes if (title := axis.get_title())] == [
        *(f"v{n}" for n in range(14)),
        "diverged",
    ]


@pytest.mark.parametrize(("seeds", "published"), [(1, PUBLISHED), (3, {})])
def test_accuracies_are_drawn(seeds: int, published: dict[str, float], tmp_path: Path) -> None:
    drawn(report_figures.accuracies(summarize(scores_of(seeds), published), COUNTS), tmp_path)


@pytest.mark.parametrize("count", [2, 12, 150])
def test_figures_of_few_and_of_many_classes_are_drawn(count: int, tmp_path: Path) -> None:
    classes = [f"${number}_to_$\n" for number in range(count)]
    random = np.random.default_rng(0)
    labels = np.resize(np.arange(count), 2 * count)
    predicted = random.dirichlet(np.ones(count), size=len(labels)).astype(np.float32)
    images = random.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    drawn(sample_grid(images, labels, classes), tmp_path)
    drawn(figures.predictions(images[:2], predicted[:2], classes, ["$1_$", "b"], [0, None]), tmp_path)
    drawn(figures.confusion_heat_map(metrics.confusion(labels, predicted, classes), "a $1_$"), tmp_path)
    areas = metrics.per_class(labels, predicted, classes)["auc"]
    drawn(figures.roc_curves(metrics.roc_points(labels, predicted, classes), areas, "roc"), tmp_path)


def test_a_thousand_classes_take_no_larger_figure(tmp_path: Path) -> None:
    counts = pd.DataFrame(np.eye(1010, dtype=int), columns=[str(number) for number in range(1010)])
    drawn(figures.confusion_heat_map(counts, "confusion"), tmp_path)
