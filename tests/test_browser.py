"""`mlflow ui` in a real browser after a quickstart: runs are listed and compare, the champion shows."""

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from pipeline.quickstart import RUNS
from tests.conftest import Clone, screenshot
from tests.servers import http_server

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ui(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, log = "mlflow ui --port {port} --workers 1", tmp_path_factory.mktemp("ui") / "log"
    with http_server(command, "health", clone.folder, clone.environment, log) as address:
        yield address


def test_the_runs_are_listed_and_compare(clone: Clone, ui: str, page: Page) -> None:
    client = MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    number = experiment.experiment_id
    page.goto(RUNS.format(number).replace("http://127.0.0.1:5000", ui))  # which the quickstart prints
    for name in ("shallow-0", "speedrun-0", "shallow_subset-0"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant's, beside the charts
    page.get_by_placeholder("Search metric charts").fill("accuracy")
    expect(page.get_by_title("test/accuracy").first).to_be_attached()
    page.wait_for_timeout(5_000)  # the charts draw themselves, with nothing to wait for
    screenshot(page, "mlflow-compare")

    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([number])}
    ids = ",".join(f'"{runs[name]}"' for name in ("shallow-0", "speedrun-0"))
    page.goto(f'{ui}/#/compare-runs?runs=[{ids}]&experiments=["{number}"]')
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for name in ("shallow-0", "speedrun-0"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def test_the_champion_alias_shows(ui: str, page: Page) -> None:
    page.goto(f"{ui}/#/models/digits")
    expect(page.get_by_text("champion").first).to_be_visible()
