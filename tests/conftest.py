"""Fixtures that several test files share: one quickstart in a clone of the repository, and a browser."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from playwright.sync_api import Page, expect, sync_playwright

from pipeline.core.arrays import read_arrays
from pipeline.shared.temperature import scaled
from pipeline.support.errors import PipelineError
from tests.ray_nodes import Nodes
from tests.servers import http_server

# The machine may be busy, so examples have no deadline; they are the same in each run.
slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=slow)
settings.load_profile("steady")

expect.set_options(timeout=180_000)  # a page takes its time on a busy machine
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
--disable-component-update --disable-sync"

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PARAMS = ROOT / "tests/params.yaml"
MISSING = object()  # in place of a value, for a key that is left out
SERVE = "mlflow models serve -m models:/digits@champion --env-manager local -p {port}"


LONGEST = ["kill", "disk", "repro", "tracking_server", "search", "readme", "checkpoint", "seeds", "reruns"]


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Start the longest files first, so that several processes end at about the same time."""
    names = [f"test_{name}.py" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


def pytest_collection_finish() -> None:
    """Spare what is imported from garbage collection, which Keras starts for each model."""
    gc.freeze()


@dataclass(frozen=True)
class Clone:
    """A clone of the repository with the changes of the working tree, without a git identity."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: this virtual environment, without MLflow's settings."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_"))}
        return kept | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder.parent),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }

    def run(
        self, *command: str, folder: str = ".", more: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; with `check`, fail the test with its output if it fails."""
        done = subprocess.run(
            command,
            cwd=self.folder / folder,
            env=self.environment | dict(more or {}),
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def copy_quickstart(self, folder: Path) -> "Clone":
        """A copy of its quickstart that a test may change, with an MLflow store of its own."""
        shutil.copytree(self.folder / "quickstart", folder / "copy")
        return Clone(folder / "copy")

    @property
    def store(self) -> str:
        """Its MLflow store."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """A clone in which `make quickstart`'s command has run, one for all processes of the tests.

    Tests that change it take a copy. Its output is in `quickstart.txt` beside it.
    """
    own = tmp_path_factory.getbasetemp()
    home = (own if worker_id == "master" else own.parent) / "home"
    with FileLock(f"{home}.lock"):
        made = Clone(home / "clone")
        if not (home / "quickstart.txt").is_file():
            shutil.rmtree(home, ignore_errors=True)
            copy_checkout(made.folder)
            made.run("git", "add", "--all")
            readme = made.folder / "README.md"
            readme.write_text(readme.read_text() + "\nA local change.\n")
            done = made.run(sys.executable, "-m", "pipeline", "quickstart")
            (home / "quickstart.txt").write_text(done.stdout)
    return made


def copy_checkout(folder: Path) -> None:
    """Clone the repository and copy the files of the working tree over it."""
    git(["clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], ROOT)
    names = git(["ls-files", "--cached", "--others", "--exclude-standard"], ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def add_environment(folder: Path) -> None:
    """Give a checkout this virtual environment as its .venv, as after `make setup`."""
    (folder / ".venv").mkdir()
    for path in BIN.parent.iterdir():
        if path.name != "made":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv/made").touch()


@pytest.fixture(scope="session")
def champion(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the quickstart's champion, served as documented, by a server that unpickles nothing."""
    environment = clone.environment | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "300",  # for a busy machine
    }
    log = tmp_path_factory.mktemp("champion") / "log"
    with http_server(SERVE, "ping", clone.folder, environment, log) as address:
        yield address


@dataclass(frozen=True)
class Evaluated:
    """The test images of the clone's digits, and the champion's probabilities for them, as it is served."""

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def evaluated(clone: Clone) -> Evaluated:
    """The probabilities as `predict` stored them, with the temperature that `evaluate` fitted."""
    folder = clone.folder / "quickstart"
    decision = json.loads((folder / "selection.json").read_text())
    name = f"{decision['variant']}-{decision['seed']}"
    temperature = pd.read_csv(folder / "evaluation" / name / "temperature.csv")["temperature"][1]
    served = scaled(read_arrays(folder / "predictions" / name)["test"], temperature)
    return Evaluated(**read_arrays(folder / "data/prepared/test"), probabilities=served)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, for commands without arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    return tmp_path


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Debian's headless Chromium, without its background requests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET.split())
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.set_default_timeout(180_000)
        yield opened
        browser.close()


def screenshot(page: Page, name: str, seconds: int) -> None:
    """Save a picture for the README if SCREENSHOTS names a folder, after `seconds` for charts to appear."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1000 * seconds)
        page.screenshot(path=Path(folder) / f"{name}.png")


def git(arguments: Sequence[str], folder: Path) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def refusal(action: Callable[..., Any], *arguments: Any) -> str:
    """The one line with which a function or, after `error: `, a command refuses its work."""
    with pytest.raises((PipelineError, SystemExit)) as caught:
        action(*arguments)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def change(content: Any, key: str, value: Any = MISSING) -> None:
    """Set a dotted key of nested dicts and lists to a value, or remove it."""
    *outer, last = key.split(".")
    for part in outer:
        content = content[int(part) if isinstance(content, list) else part]
    if value is MISSING:
        del content[last]
    else:
        content[last] = value


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, by their paths in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A Ray cluster without nodes for trainings."""
    made = Nodes(tmp_path)
    yield made
    made.close()
