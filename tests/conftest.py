"""What several test files share: the repository, and one quickstart in a clone of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from playwright.sync_api import Page, expect, sync_playwright

from pipeline.data.arrays import read_arrays

# How long an example takes says nothing here: the machine may be busy.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

expect.set_options(timeout=180_000)  # a page takes its time on a busy machine
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
--disable-component-update --disable-sync"

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Clone:
    """A clone of the repository, as it stands in the working tree, on a machine without a git identity."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment that its commands run in: this virtual environment, no identity, no MLflow."""
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
        """Run a command in the clone; with `check`, fail the test with its output where it fails."""
        done = subprocess.run(
            command,
            cwd=self.folder / folder,
            env=self.environment | dict(more or {}),
            capture_output=True,
            text=True,
            timeout=900,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def copy_quickstart(self, folder: Path) -> "Clone":
        """A copy of its quickstart, to be changed, with an MLflow store of its own."""
        shutil.copytree(self.folder / "quickstart", folder / "copy")
        return Clone(folder / "copy")

    @property
    def store(self) -> str:
        """Its MLflow store."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")  # one for each process of the tests
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `make quickstart`'s command has run."""
    folder = tmp_path_factory.mktemp("home") / "clone"
    git(["clone", "--quiet", str(ROOT), str(folder)], ROOT)
    changed = git(["ls-files", "--modified", "--others", "--exclude-standard"], ROOT).splitlines()
    for name in changed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    made = Clone(folder)
    made.run("git", "add", "--all")
    readme = folder / "README.md"
    readme.write_text(readme.read_text() + "\nA local change.\n")
    made.run(sys.executable, "-m", "pipeline.quickstart")
    return made


@dataclass(frozen=True)
class Evaluated:
    """The test split of the clone's digits, and what its champion was found to say of it."""

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def evaluated(clone: Clone) -> Evaluated:
    """As `evaluate` wrote it."""
    folder = clone.folder / "quickstart"
    decision = json.loads((folder / "champion.json").read_text())
    name = f"{decision['variant']}-{decision['seed']}"
    probabilities = read_arrays(folder / "evaluation" / name / "probabilities")["test"]
    return Evaluated(**read_arrays(folder / "data/prepared/test"), probabilities=probabilities)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a headless Chromium, Debian's, that asks for nothing by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET.split())
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.set_default_timeout(180_000)
        yield opened
        browser.close()


def screenshot(page: Page, name: str) -> None:
    """Keep a picture where SCREENSHOTS names a folder, for the README."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def git(arguments: Sequence[str], folder: Path) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout
