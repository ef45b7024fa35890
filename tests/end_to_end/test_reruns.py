"""What an edit reruns: only the trainings whose recipe changed, and nothing if only words changed.

The network, its block and the metric are those of CONTRIBUTING.md.
"""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from ruamel.yaml import YAML

from pipeline.commands import plan
from tests.conftest import ROOT, Clone

NEUTRAL = (
    "support/mlflow_training support/mlflow_runs support/errors support/locks "
    "commands/plan commands/classify stages/recipes/networks"
)


def example(words: str) -> str:
    """The code block of CONTRIBUTING.md with these words."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^ *```(?:python|yaml)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return "\n\n" + dedent(next(block for block in blocks if words in block))


def edit(folder: Path, modules: str, text: str = "\n# A change.\n") -> None:
    for module in modules.split():
        with (folder / f"pipeline/{module}.py").open("a") as file:
            file.write(text)


def test_an_edit_reruns_the_stages_that_it_decides(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of modules, then of a learning rate, then of a network and its block, one after the other."""
    copy = clone.copy_quickstart(tmp_path)
    monkeypatch.chdir(copy.folder)
    monkeypatch.setenv("PATH", copy.environment["PATH"])
    expected: set[str] = set()

    def assert_outdated_too(*stages: str) -> None:
        expected.update(stages)
        assert set(plan.after_recipes(plan.outdated_stages())) == expected

    edit(copy.folder, NEUTRAL)  # words, logs and commands; a comment among the networks
    assert_outdated_too()
    edit(copy.folder, "stages/promote/served_model")
    assert_outdated_too("promote")
    edit(copy.folder, "stages/evaluate/metrics", example("def top3_accuracy"))
    assert_outdated_too("evaluate", "select", "diagnose", "report")

    params = YAML().load(copy.folder / "params.yaml")
    params["variants"]["speedrun"]["optimizer"]["learning_rate"] = 0.002
    YAML().dump(params, copy.folder / "params.yaml")
    assert_outdated_too("train@speedrun-0", "predict@speedrun-0")

    edit(copy.folder, "stages/recipes/networks", example("def tiny") + example("def residual"))
    params["variants"] |= YAML().load(example("tiny:"))["variants"]
    params["variants"]["tiny"]["epochs"] = 1
    YAML().dump(params, copy.folder / "params.yaml")
    assert_outdated_too("train@tiny-0", "predict@tiny-0")
    copy.run("dvc", "repro", "--single-item", "train@tiny-0", "predict@tiny-0")
    copy.run("python", "-m", "pipeline", "evaluate", "tiny", "0")
    assert "top3_accuracy" in (copy.folder / "metrics/tiny-0.json").read_text()
