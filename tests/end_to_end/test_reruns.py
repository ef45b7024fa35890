"""What an edit reruns: only the trainings whose recipe changed, and nothing if only words changed.

The network, its block and the metric are those of CONTRIBUTING.md.
"""

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.commands import plan
from tests.conftest import Clone
from tests.docs import examples

NEUTRAL = (
    "support/mlflow_training support/mlflow_runs support/errors support/locks commands/plan commands/classify"
)


NETWORK, RESIDUAL, METRIC = (f"\n\n{code}" for code in examples("CONTRIBUTING.md", "python", count=3))
[BLOCK] = examples("CONTRIBUTING.md", "yaml", count=1)


RUN = "import sys; from pipeline.__main__ import main; [main(words.split()) for words in sys.argv[1:]]"


def edit(folder: Path, modules: str, text: str = "\n# A change.\n") -> None:
    for module in modules.split():
        with (folder / f"pipeline/{module}.py").open("a") as file:
            file.write(text)


def test_an_edit_reruns_the_stages_that_it_decides(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of modules, one after the other, then of a learning rate beside a new network and its block."""
    copy = clone.copy_quickstart(tmp_path)
    monkeypatch.chdir(copy.folder)
    monkeypatch.setenv("PATH", copy.environment["PATH"])
    expected: set[str] = set()

    def assert_outdated_too(*stages: str) -> None:
        expected.update(stages)
        assert set(plan.after_recipes(plan.outdated_stages())) == expected

    edit(copy.folder, NEUTRAL)  # words, logs and commands
    assert_outdated_too()
    edit(copy.folder, "stages/promote/served_model")
    assert_outdated_too("promote")
    edit(copy.folder, "shared/metrics", METRIC)
    assert_outdated_too("evaluate", "select", "diagnose", "report")

    params = YAML().load(copy.folder / "params.yaml")
    params["variants"]["speedrun"]["optimizer"]["learning_rate"] = 0.002
    edit(copy.folder, "stages/recipes/networks", f"\n# A change.\n{NETWORK}{RESIDUAL}")
    params["variants"] |= YAML().load(BLOCK)["variants"]
    params["variants"]["tiny"]["epochs"] = 1
    YAML().dump(params, copy.folder / "params.yaml")
    assert_outdated_too(
        *(f"{stage}@{name}-0" for name in ("speedrun", "tiny") for stage in ("train", "predict"))
    )
    copy.run(sys.executable, "-c", RUN, "train tiny 0", "predict tiny 0", "evaluate tiny 0")
    assert "top3_accuracy" in (copy.folder / "metrics/tiny-0.json").read_text()
