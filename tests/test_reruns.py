"""What an edit reruns: only the trainings whose recipe changed, and nothing if only words changed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import Clone

pytestmark = pytest.mark.timeout(900)  # the first test waits for the quickstart

NEUTRAL = [
    "integrity",
    "records/recording",
    "records/tracking",
    "shared/errors",
    "shared/lock",
    "plan",
    "classify",
]
TINY = '''

def tiny(width: int = 4) -> list[keras.Layer]:
    """A dense layer."""
    return [layers.Flatten(), layers.Dense(width, activation="relu")]
'''


@pytest.fixture(scope="module")
def copy(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return clone.copy_quickstart(tmp_path_factory.mktemp("reruns"))


@pytest.fixture
def folder(copy: Clone) -> Iterator[Path]:
    """The folder of a finished quickstart. What a test edits is put back."""
    for name in ("pipeline", "recipes"):
        shutil.copytree(copy.folder / name, copy.folder / f"{name}.kept")
    kept = {name: (copy.folder / name).read_bytes() for name in ("params.yaml", "dvc.lock")}
    yield copy.folder
    for name in ("pipeline", "recipes"):
        shutil.rmtree(copy.folder / name)
        (copy.folder / f"{name}.kept").rename(copy.folder / name)
    for name, content in kept.items():
        (copy.folder / name).write_bytes(content)


def outdated(copy: Clone) -> set[str]:
    """The stages whose dependencies changed, once the recipes are up to date."""
    copy.run("dvc", "repro", "recipes")
    return set(json.loads(copy.run("dvc", "status", "--json").stdout))


def edit(folder: Path, *modules: str, text: str = "\n# A change.\n") -> None:
    for module in modules:
        with (folder / f"pipeline/{module}.py").open("a") as file:
            file.write(text)


@pytest.mark.parametrize(
    ("modules", "stages"),
    [
        ([*NEUTRAL, "design/networks"], set()),  # words, logs and commands; a comment among the networks
        (["champion/served_model"], {"promote"}),
        (["scoring/metrics"], {"evaluate", "promote"}),
    ],
    ids=["words", "serving", "metrics"],
)
def test_editing_a_module_reruns_the_stages_that_it_decides(
    copy: Clone, folder: Path, modules: list[str], stages: set[str]
) -> None:
    edit(folder, *modules)
    assert outdated(copy) == stages


def test_a_learning_rate_trains_its_variant(copy: Clone, folder: Path) -> None:
    params = YAML().load(folder / "params.yaml")
    params["variants"]["baseline"]["optimizer"]["learning_rate"] = 0.002
    YAML().dump(params, folder / "params.yaml")
    assert outdated(copy) == {"train@baseline-0", "predict@baseline-0"}


def test_a_new_network_and_its_block_train_exactly_that_variant(copy: Clone, folder: Path) -> None:
    edit(folder, "design/networks", text=TINY)
    params = YAML().load(folder / "params.yaml")
    params["variants"]["tiny"] = dict(params["variants"]["shallow"]) | {
        "network": {"name": "tiny", "width": 8},
        "epochs": 1,
    }
    YAML().dump(params, folder / "params.yaml")
    assert outdated(copy) == {"train@tiny-0", "predict@tiny-0", "evaluate", "promote", "report"}
    copy.run("dvc", "repro", "--single-item", "train@tiny-0", "predict@tiny-0")
    copy.run("python", "-m", "pipeline.evaluate", "tiny", "0")
    assert (copy.folder / "metrics/tiny-0.json").is_file()
