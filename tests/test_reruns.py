"""What an edit reruns: only the trainings whose recipe changed, and nothing if only words changed."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import plan
from tests.conftest import Clone
from tests.jobs import call

NEUTRAL = (
    "integrity records/recording records/tracking shared/errors shared/lock plan classify design/networks"
)
TINY = '''

def tiny(width: int = 4) -> list[keras.Layer]:
    """A dense layer."""
    return [layers.Flatten(), layers.Dense(width, activation="relu")]
'''


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
    edit(copy.folder, "champion/served_model")
    assert_outdated_too("promote", "diagnose", "report")
    edit(copy.folder, "scoring/metrics")
    assert_outdated_too("evaluate")

    params = YAML().load(copy.folder / "params.yaml")
    params["variants"]["speedrun"]["optimizer"]["learning_rate"] = 0.002
    YAML().dump(params, copy.folder / "params.yaml")
    assert_outdated_too("train@speedrun-0", "predict@speedrun-0")

    edit(copy.folder, "design/networks", TINY)
    network = {"network": {"name": "tiny", "width": 8}, "epochs": 1}
    params["variants"]["tiny"] = dict(params["variants"]["shallow"]) | network
    YAML().dump(params, copy.folder / "params.yaml")
    assert_outdated_too("train@tiny-0", "predict@tiny-0")
    copy.run("dvc", "repro", "--single-item", "train@tiny-0", "predict@tiny-0")
    assert call(copy.folder, "evaluate", "tiny", "0").error is None
    assert (copy.folder / "metrics/tiny-0.json").is_file()
