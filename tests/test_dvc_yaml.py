"""dvc.yaml tells the truth: each stage lists the modules that its code imports, and no other."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
FOLDERS = {"pipeline", *(f"pipeline.{path.parent.name}" for path in ROOT.glob("pipeline/*/__init__.py"))}


def imports_of(module: str) -> set[str]:
    """The pipeline's modules that a module's source imports anywhere in it, as paths."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module in FOLDERS:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {f"{name.replace('.', '/')}.py" for name in names if name.startswith("pipeline.")}
    if "served_model.py" in (ROOT / module).read_text():
        found.add("pipeline/champion/served_model.py")  # MLflow runs it from its path
    return found - {module}


def all_imports_of(module: str) -> set[str]:
    found, new = {module}, {module}
    while new:
        new = set().union(*(imports_of(path) for path in new)) - found
        found |= new
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_modules_that_it_imports(stage: str) -> None:
    entry = re.search(r"python -m (pipeline\.\w+)", STAGES[stage]["cmd"])
    assert entry is not None
    listed = {path for path in STAGES[stage]["deps"] if path.endswith(".py")}
    assert listed == all_imports_of(f"{entry[1].replace('.', '/')}.py")


def test_no_training_and_no_selection_reads_the_test_images() -> None:
    readers = {name for name, stage in STAGES.items() if "data/prepared/test" in stage["deps"]}
    assert readers == {"evaluate", "evaluate_finetuned"}
    paths = {path for path in STAGES["train"]["deps"] if path.startswith("data/")}
    assert paths == {f"data/prepared/{part}" for part in ("split", "train", "validation")}


def test_serving_and_reporting_code_is_no_dependency_of_training() -> None:
    trainings = {*STAGES["train"]["deps"], *STAGES["finetune"]["deps"]}
    assert not {path for path in trainings if path.startswith(("pipeline/champion", "pipeline/scoring"))}
    assert not {f"pipeline/{name}.py" for name in ("data/images", "report", "params")} & trainings


@pytest.mark.parametrize("stage", ["fetch", "prepare", "report"])
def test_a_light_stage_starts_without_tensorflow(stage: str) -> None:
    code = f"import sys, pipeline.{stage}; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_every_module_begins_with_what_it_is_for() -> None:
    for path in Path(ROOT / "pipeline").rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        if "def main()" in path.read_text():
            assert f"python -m pipeline.{path.stem}" in docstring, path
