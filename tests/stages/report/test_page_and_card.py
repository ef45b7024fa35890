"""The report as a page, the model card, and the files that they are made from."""

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

from pipeline.core.arrays import write_arrays, write_json
from pipeline.params import Card
from pipeline.stages.report import documents
from pipeline.stages.report.results import read_results
from pipeline.stages.report.tables import literal, markdown_table
from pipeline.support.digests import file_digest
from pipeline.support.paths import PREDICTIONS, PREPARED
from tests.conftest import refusal
from tests.example_results import (
    DIGEST,
    EXAMPLE,
    ODD_NAMES,
    VALIDATION,
    diagnosis_of,
    history,
    per_class,
    recipe_of,
    results_of,
    table_rows,
    with_served,
)


def parsed(page: str) -> tuple[Element, list[list[str]]]:
    """A page, and the cells of the rows of its tables."""
    tree = fromstring(page)
    return tree, [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the figures that the report shows."""
    folder = tmp_path_factory.mktemp("reports")
    for name in re.findall(r"!\[.*?\]\((.+?)\)", documents.report(EXAMPLE)):
        Figure(figsize=(1, 1)).savefig(folder / name)
    return folder


def test_page_opens_by_itself_and_shows_tables_as_tables(reports: Path) -> None:
    page, rows = parsed(documents.html_page(documents.report(results_of(3)), reports, "Results on <pets>"))
    assert page.findtext("head/title") == "Results on <pets>"
    sources = [image.attrib["src"] for image in page.iter("img")]
    assert len(sources) == 12
    assert all(source.startswith("data:image/png;base64,iVBORw0KGgo") for source in sources)
    assert not [*page.iter("link")]
    links = {link.attrib["href"]: link.text for link in page.iter("a")}
    lists = {f"{name}.csv" for name in ("misclassified", "near_duplicates", "label_errors")}
    assert {links.pop(name) for name in lists} == lists
    assert links == {f"#{heading.attrib['id']}": "".join(heading.itertext()) for heading in page.iter("h2")}
    assert len(links) == 8
    assert [script.attrib for script in page.iter("script")] == [{}]
    assert ["vgg3_early_stop", "550,571", "11", "0.7700 ± 0.0100"] in [row[:4] for row in rows]
    assert ["dog", "cat", "12", "12", "0"] in rows


@pytest.mark.system
def test_a_table_sorts_and_a_figure_enlarges(reports: Path, page: Any) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    numbers = ["1,000,000", "66,170", "+0.5", "-2.8"]
    text = markdown_table(pd.DataFrame({"number": numbers[::-1]})) + "\n\n" + documents.report(EXAMPLE)
    page.set_content(documents.html_page(text, reports, "Results"))
    page.get_by_role("columnheader", name="number").click()
    assert page.locator("table").first.locator("tbody td").all_inner_texts() == numbers
    table = page.locator("table").nth(2)
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


@pytest.mark.system
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_table_is_cut_off_at_1200_pixels(reports: Path, page: Any, seeds: int) -> None:
    """With all columns that there can be, and names as long as those of params.yaml."""
    results = results_of(seeds, VALIDATION | {"batchnorm_subset": 0.6})
    uneven = replace(results, balance=results.balance.assign(test=[5, 20]))
    page.set_viewport_size({"width": 1200, "height": 800})
    page.set_content(documents.html_page(documents.report(uneven), reports, "Results"))
    hidden = "tables => tables.map(table => table.scrollWidth - table.clientWidth)"
    assert set(page.locator("table").evaluate_all(hidden)) == {0}
    assert page.locator("table").nth(1).locator("th").count() == 10


def test_names_are_shown_as_they_are_written(reports: Path) -> None:
    table = markdown_table(pd.DataFrame({"class": ODD_NAMES, "test": "5"}))
    named = "\n\n".join(f"The class {literal(name)}, again." for name in ODD_NAMES)
    page, rows = parsed(documents.html_page(f"# Title\n\n{table}\n\n{named}\n", reports, ""))
    assert rows == [["class", "test"], *([name, "5"] for name in ODD_NAMES)]
    paragraphs = ["".join(paragraph.itertext()) for paragraph in page.iter("p")]
    assert paragraphs == [f"The class {name}, again." for name in ODD_NAMES]
    page, rows = parsed(documents.html_page(documents.report(results_of(classes=ODD_NAMES)), reports, ""))
    assert [row[0] for row in rows if row[1:] == ["20", "5", "5"]] == ODD_NAMES
    pair = f"{ODD_NAMES[1]} and {ODD_NAMES[0]}"
    assert f"It most often confuses {pair} (12 test images)." in "".join(page.itertext())


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
    for variant in ("vgg3", "vgg3_early_stop"):
        recipe = Path(f"recipes/{variant}/recipe.json")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_json(recipe, recipe_of(variant))
    results.balance.to_csv("data/prepared/class_balance.csv", index=False)
    write_json(Path("selection.json"), results.selection.model_dump())
    for name, accuracy in {"vgg3_early_stop-0": 0.77, "vgg3-0": 0.76, "former-0": 0.9}.items():
        scores = {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.02}}
        write_json(Path("metrics") / f"{name}.json", with_served(scores))
        found = {
            part: np.where(np.arange(100) < 100 * of["accuracy"], labels, 1 - labels)
            for part, of in scores.items()
        }
        probabilities = {part: np.eye(2, dtype=np.float32)[one] for part, one in found.items()}
        (model := Path("models", name, "model.keras")).parent.mkdir(parents=True)
        model.write_text(name)
        write_arrays(PREDICTIONS / name, probabilities, model_digest=file_digest(model))
        ended = {"parameters": 7, "stopped_epoch": 3, "validation/accuracy": accuracy}
        record = {"tags": {"status": "trained"}, "params": {}, "metrics": ended}
        write_json(Path("models") / name / "training.json", record)
        history(3).to_csv(Path("models") / name / "history.csv", index=False)
        Path("evaluation", name).mkdir(parents=True)
        per_class(classes).to_csv(Path("evaluation") / name / "per_class.csv")
        results.confused.to_csv(Path("evaluation") / name / "most_confused.csv", index=False)
        results.calibration.to_csv(Path("evaluation") / name / "temperature.csv", index=False)
        results.coverage.to_csv(Path("evaluation") / name / "coverage.csv", index=False)
    Path("diagnosis").mkdir()
    fitted = pd.DataFrame({"model": ["vgg3-0", "vgg3_early_stop-0"], "accuracy": [0.5, 0.5], "images": 50})
    for title, table in (diagnosis_of("vgg3_early_stop-0") | {"training_accuracy": fitted}).items():
        table.to_csv(Path("diagnosis") / f"{title}.csv", index=False)
    return workplace


@pytest.mark.usefixtures("project")
def test_report_reads_the_trainings_that_params_name_and_no_other() -> None:
    results = read_results({"vgg3_early_stop": 0.7711, "vgg3": 0.7678})
    assert list(results.table.index) == ["vgg3_early_stop", "vgg3"]
    assert results.table["published"].tolist() == [0.7711, 0.7678]
    assert results.table["training_accuracy"].tolist() == [0.5, 0.5]
    assert results.f1.to_numpy()[0] == pytest.approx([0.74, 0.74])
    assert results.right.mean() == 0.75
    assert results.test.right.mean().to_dict() == {("vgg3", 0): 0.74, ("vgg3_early_stop", 0): 0.75}
    assert ["NA", "20", "5", "5"] in table_rows(documents.report(results).split("## Data")[1], "class")
    write_arrays(Path("data/prepared/split"), {}, **results.facts | {"source": "directory"})
    assert not re.search("published|document|CIFAR|2000s", documents.report(read_results({"vgg3": 0.7678})))


@pytest.mark.usefixtures("project")
def test_the_card_of_the_chosen_model_has_its_figures_and_is_one_of_hugging_face() -> None:
    results = read_results({})
    text = documents.model_card(results, Card())
    data = ModelCard(text).data.to_dict()
    [model] = data["model-index"]
    assert model["name"] == "vgg3_early_stop-0"
    assert model["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.75}]
    assert (data["library_name"], data["datasets"]) == ("keras", ["uoft-cs/cifar10"])
    of_own_images = replace(results, facts=results.facts | {"source": "directory"})
    own = ModelCard(documents.model_card(of_own_images, Card())).data.to_dict()
    assert "datasets" not in own  # which the Hub would look up
    assert own["model-index"][0]["results"][0]["dataset"]["type"] == "pets"
    assert data["model_digest"] == DIGEST
    paragraphs = text.split("\n---\n")[1].strip().split("\n\n")
    assert all(line.startswith(("- ", "|")) for one in paragraphs if "\n" in one for line in one.split("\n"))
    assert "0.7500 on 100 test images (95 % interval 0.657 to 0.825)" in text
    assert "0.7700 on 100 validation images" in text
    before, after = results.calibration["calibration_error"]
    assert f"expected calibration error {after:.3f}, Brier score" in text
    assert "temperature of 0.50, fitted on validation images (95 % interval 0.40 to 0.60)" in text
    assert f"Without it, these would be {before:.3f}, 0.020 and" in text
    sure = "100.0% of the test images have a confidence of at least 0.7; it is right about 0.0% of these"
    assert f"{sure} (95 % interval 0.0% to 3.7%)." in text
    assert table_rows(text, "class")[1][0] == "NA"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("source", ["directory", "digits"])
def test_a_card_says_what_its_owner_says_and_nothing_of_other_data(source: str) -> None:
    said = Card(
        intended_use="To sort *my* pictures.",
        licence="CC BY 4.0",
        owner="me@example.org",
        origin="My camera.",
    )
    results = results_of(source=source)
    text = documents.model_card(results, said)
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "CC BY 4.0")
    for words in (r"To sort \*my\*", "**Owner**: me@example.org", "**Licence**: CC BY 4.0", "\n\nMy camera."):
        assert words in text
    none = documents.model_card(results, Card())
    assert "license" not in ModelCard(none).data.to_dict()
    words = "CIFAR|[Tt]each|2000s|surveillance|of the documents"
    assert not re.search(words, text + none + documents.report(results))


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        ("selection.json", '"seed": 0', '"seed": 7', "vgg3_early_stop-7: has no scores"),
        ("evaluation/vgg3_early_stop-0/per_class.csv", "f1", "F1", "f1: missing"),
        ("evaluation/vgg3_early_stop-0/most_confused.csv", "12", "many", "cannot be read"),
        ("diagnosis/training_accuracy.csv", "vgg3-0", "former-0", "lacks vgg3-0"),
        ("diagnosis/label_errors.csv", "index,", "number,", "index: missing"),
    ],
)
def test_a_broken_edit_is_one_line(project: Path, path: str, old: str, new: str, problem: str) -> None:
    text = (project / path).read_text()
    edited = re.sub(old, new, text, count=1)
    assert edited != text
    (project / path).write_text(edited)
    assert re.match(f"{re.escape(path)}: .*{problem}", refusal(read_results, {}))
