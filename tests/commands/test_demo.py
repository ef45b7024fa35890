"""The page in a real browser: test images, uploads, pastes, bad files, and no request beyond this machine."""

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Page, expect

from pipeline.commands.ui import RUNS
from tests.called import call
from tests.conftest import Clone, Evaluated, screenshot
from tests.servers import free_port, http_server

pytestmark = pytest.mark.system
DEMO, HEALTH = f"{sys.executable} -m pipeline demo --port {{port}}", "_stcore/health"
PASTE = """(content) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const clipboard = new DataTransfer();
  clipboard.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def address(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, log = f"{DEMO} --model models:/digits@champion", tmp_path_factory.mktemp("demo") / "log"
    with http_server(command, HEALTH, clone.folder, clone.environment, log) as found:
        yield found
    assert "Traceback" not in log.read_text()


@pytest.fixture
def demo(address: str, page: Page) -> Iterator[Page]:
    """The page, whose every request goes to its own server."""
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    expect(page.get_by_text("It is:")).to_be_visible()
    yield page
    assert len(requested) > 10
    hosts = {url.split("/")[2] for url in requested if not url.startswith(("data:", "blob:"))}
    assert hosts == {address.removeprefix("http://")}


@pytest.fixture
def file(evaluated: Evaluated, tmp_path: Path) -> Path:
    """Test image 5, ten times as large, in the middle of one that is twice as high."""
    square = np.kron(evaluated.images[5], np.ones((10, 10, 1), np.uint8))
    Image.fromarray(np.pad(square, ((160, 160), (0, 0), (0, 0)))).save(tmp_path / "five.png")
    return tmp_path / "five.png"


def test_a_test_image_shows_its_pixels_its_likeliest_classes_and_its_confusions(
    demo: Page, evaluated: Evaluated
) -> None:
    demo.get_by_label("Or take a test image").fill("16")
    demo.get_by_label("Or take a test image").press("Enter")
    row = evaluated.probabilities[16]
    answer = f"{row.argmax()}, {row.max():.1%}"
    expect(demo.get_by_role("heading", name=answer)).to_be_visible()
    expect(demo.get_by_text(f"It is: {evaluated.labels[16]}")).to_be_visible()
    expect(demo.get_by_text("32 x 32 pixels")).to_be_visible()
    best = (-row).argsort()[:3]
    shares = [f"{label}: {row[label]:.1%}" for label in best]
    expect(demo.get_by_test_id("stProgress")).to_have_text(shares)
    expect(demo.get_by_text("confuse").last).to_be_visible()
    seen = demo.get_by_test_id("stImage").locator("img").last
    plain = seen.get_attribute("src")
    demo.get_by_text("Where it looks").click()
    expect(demo.get_by_text(f"orange: what speaks for {row.argmax()}")).to_be_visible()
    expect(seen).not_to_have_attribute("src", str(plain))
    screenshot(demo, "demo", 2)


@pytest.mark.parametrize("how", ["uploaded", "pasted"])
def test_an_image_is_answered(demo: Page, file: Path, evaluated: Evaluated, how: str) -> None:
    expect(demo.get_by_text("or paste one")).to_be_visible()
    if how == "uploaded":
        demo.locator("input[type=file]").set_input_files(file)
    else:
        demo.evaluate(PASTE, base64.b64encode(file.read_bytes()).decode())
        expect(demo.get_by_text("pasted.png")).to_be_visible()
    expect(demo.get_by_text("It is:")).to_be_hidden()  # nobody knows
    for image, width in zip(demo.get_by_test_id("stImage").locator("img").all(), (256, 512), strict=True):
        expect(image).to_have_js_property("naturalWidth", width)  # of the whole image and of its middle
        expect(image).to_have_js_property("naturalHeight", 512)
    expect(demo.get_by_role("heading", name=f"{evaluated.probabilities[5].argmax()}, ")).to_be_visible()


@pytest.mark.parametrize("content", [b"not an image", b"", "cut"], ids=["text", "empty", "cut off"])
def test_a_bad_file_gives_a_message_and_the_page_goes_on(demo: Page, file: Path, content: Any) -> None:
    """The message shows the file's name as it is, not as Markdown."""
    whole = file.read_bytes()
    bad = file.with_name("__b*d__ $x$ [y](z).png")
    bad.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    demo.locator("input[type=file]").set_input_files(bad)
    alert = demo.get_by_role("alert")
    expect(alert).to_contain_text(f"{bad.name}: ")
    text = alert.inner_text()
    assert text.startswith(f"{bad.name}: ")
    assert "\n" not in text
    expect(demo.get_by_test_id("stException")).to_have_count(0)
    expect(demo.get_by_text("What the network sees")).to_be_hidden()
    demo.locator("input[type=file]").set_input_files(file)
    expect(alert).to_be_hidden()
    expect(demo.get_by_text("What the network sees")).to_be_visible()


def test_a_model_that_is_not_there_is_refused_before_the_page(clone: Clone) -> None:
    """CIFAR-10's, of params.yaml."""
    refusal = call(clone.folder, "demo", "--port", str(free_port()), MLFLOW_TRACKING_URI=clone.store).refusal
    assert refusal.startswith("models:/cifar10@champion: cannot be loaded: ")
    assert refusal.endswith("; champions here: models:/digits@champion")


@pytest.fixture(scope="module")
def ui(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, log = f"{sys.executable} -m pipeline ui --port {{port}}", tmp_path_factory.mktemp("ui") / "log"
    with http_server(command, "health", clone.folder, clone.environment, log) as address:
        yield address
        [line] = re.findall("ui: .*", log.read_text())
        assert line.startswith(f"ui: the runs of digits: {address}/#/experiments/")


def test_the_runs_are_listed_and_compare(clone: Clone, ui: str, page: Page) -> None:
    client = MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    number = experiment.experiment_id
    page.goto(RUNS.format(ui, number))  # which the quickstart prints
    for name in ("shallow-0", "speedrun-0", "shallow_subset-0"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant's, beside the charts
    page.get_by_placeholder("Search metric charts").fill("accuracy")
    expect(page.get_by_title("test/accuracy").first).to_be_attached()
    page.get_by_placeholder("Search metric charts").fill("^(accuracy|val_accuracy|val_loss)$")
    expect(page.get_by_title("val_loss").first).to_be_attached()
    page.set_viewport_size({"width": 1400, "height": 720})
    screenshot(page, "mlflow-compare", 5)

    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([number])}
    ids = ",".join(f'"{runs[name]}"' for name in ("shallow-0", "speedrun-0"))
    page.goto(f'{ui}/#/compare-runs?runs=[{ids}]&experiments=["{number}"]')
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for name in ("shallow-0", "speedrun-0"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def test_the_champion_alias_shows(ui: str, page: Page) -> None:
    page.goto(f"{ui}/#/models/digits")
    expect(page.get_by_text("champion").first).to_be_visible()
