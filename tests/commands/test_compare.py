"""The results of two commits, compared as a pull request shows them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.commands.compare import difference
from tests.called import call
from tests.conftest import ROOT, Clone
from tests.projects import Project, commit


@pytest.fixture
def job(clone: Clone, tmp_path: Path) -> Project:
    """The finished quickstart as a git repository, whose results are committed."""
    folder = shutil.copytree(clone.folder / "quickstart", tmp_path / "job")
    shutil.copytree(folder / ".dvc/cache", tmp_path / "cache")
    shutil.rmtree(folder / ".dvc")
    shutil.copy(ROOT / ".gitignore", folder)
    commit(folder)
    shutil.copytree(tmp_path / "cache", folder / ".dvc/cache")
    return Project(folder)


def test_a_removed_variant_and_another_choice_are_shown(job: Project) -> None:
    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    del params["variants"]["speedrun"]
    (job.folder / "params.yaml").write_text(json.dumps(params))
    job.run("dvc", "repro", "--quiet", "select")
    page = call(job.folder, "compare", "HEAD").out
    scores = json.loads((job.folder / "metrics/shallow-0.json").read_text())
    chosen = (
        f"The chosen model is **shallow-0**, mean validation accuracy {scores['validation']['accuracy']:.4f}"
    )
    assert f"\n\n{chosen}; at `HEAD` it is speedrun-0, 0.9" in page
    [row] = [line for line in page.splitlines() if line.startswith("| speedrun ")]
    assert [bool(cell.strip()) for cell in row.split("|")[2:-1]] == [True, False, True, False, False]
    assert "| shallow " not in page.partition("### Settings")[0]
    assert "| params.yaml | variants.speedrun.epochs " in page.replace("\\_", "_")
    assert re.search(r"\n\| evaluation/scores/speedrun-0-test.json +\| accuracy ", page.replace("\\_", "_"))


def test_a_commit_without_results_is_refused(job: Project) -> None:
    assert call(job.folder, "compare", "nonsense").refusal.startswith(
        "nonsense: its results cannot be read: "
    )
    shutil.rmtree(job.folder / ".dvc/cache")
    assert call(job.folder, "compare", "HEAD").refusal.startswith("HEAD: its results cannot be read: ")


def test_the_interval_is_that_of_the_same_images() -> None:
    """Of two seeds that are right about 20 images more, of 100, and 10 less."""
    before = np.repeat([True, False], 50)
    after = before.copy()
    after[:10], after[50:70] = False, True
    tables = [
        pd.DataFrame({("one", seed): right for seed in (0, 1)}).rename_axis(columns=["variant", "seed"])
        for right in (before, after)
    ]
    sd = np.sqrt((0.3 - 0.1**2) * 100 / 99 / 100)
    low, high = 10 - 198.4 * sd, 10 + 198.4 * sd  # Student's t of 99 degrees of freedom
    assert difference("one", *tables) == f"+10.0 ({low:+.1f} to {high:+.1f})"
    assert difference("two", *tables) == ""
