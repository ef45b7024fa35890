"""dvc.yaml and the package's structure: stages depend on the modules that decide their outputs."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from ruamel.yaml import YAML

import pipeline
from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()
}
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pipeline").rglob("*.py"))

# The modules that cannot change the content of any result. No stage of dvc.yaml lists them and no key of a
# checkpoint covers them, so editing one reruns nothing.
NEUTRAL = {
    "pipeline/integrity.py": "compares files with dvc.lock and restores damaged ones",
    "pipeline/records/outputs.py": "logs the files of evaluate and report to MLflow",
    "pipeline/records/recording.py": "logs a training's files to MLflow",
    "pipeline/records/store.py": "checks that MLflow's store can be used",
    "pipeline/records/tracking.py": "starts, finds and ends MLflow runs",
    "pipeline/shared/arguments.py": "parses command lines, whose words dvc.yaml has",
    "pipeline/shared/dvc_lock.py": "reads dvc.lock",
    "pipeline/shared/errors.py": "words errors",
    "pipeline/shared/load_params.py": "parses params.yaml, whose values DVC compares itself",
    "pipeline/shared/lock.py": "keeps two processes from doing the same work",
    "pipeline/shared/paths.py": "names files that dvc.yaml names too",
    "pipeline/shared/reading.py": "reads results and refuses impossible ones",
    "pipeline/shared/results.py": "copies results that were made ahead of their stages",
    "pipeline/shared/trained.py": "names the files of a trained model and reads its records",
}


def files_of(name: str) -> set[str]:
    """The file of `x` or `pipeline.x.y`, if there is such a module."""
    path = Path(*name.split(".")).with_suffix(".py")
    return {str(path)} if (ROOT / path).is_file() else set()


def imports_of(module: str) -> set[str]:
    """The modules of the pipeline that a module's source imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            found |= {file for alias in node.names for file in files_of(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {file for name in names for file in files_of(name)}
    if module == "pipeline/champion/serving.py":  # which registers copies of these
        found |= {"pipeline/champion/served_model.py", "pipeline/learning/views.py"}
    return {file for file in found if file.startswith("pipeline/")} - {module}


IMPORTS = nx.DiGraph((module, imported) for module in MODULES for imported in imports_of(module))


def deciding_modules(module: str) -> set[str]:
    """A module and all that it imports, but for neutral modules and what only those import."""
    deciding = IMPORTS.subgraph([node for node in IMPORTS if node not in NEUTRAL or node == module])
    return {module} | nx.descendants(deciding, module)


def listed_modules(stage: str) -> set[str]:
    """The modules that a stage lists, itself or by their folder."""
    listed = [ROOT / path for path in STAGES[stage]["deps"] if path.startswith("pipeline/")]
    files = {file for path in listed for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}


def module_of(stage: str) -> str:
    found = re.search(r"python -m pipeline\.(\w+)", STAGES[stage]["cmd"])
    assert found is not None
    return f"pipeline/{found[1]}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_modules_that_decide_its_outputs(stage: str) -> None:
    assert listed_modules(stage) == deciding_modules(module_of(stage))


def test_neutral_modules_exist() -> None:
    assert NEUTRAL.keys() <= set(MODULES)


def test_nothing_is_trained_or_chosen_on_test_images() -> None:
    readers = {name for name, stage in STAGES.items() if "data/prepared/test" in stage["deps"]}
    assert readers == {"predict", "predict_finetuned", "evaluate", "diagnose", "report"}
    for stage in ("train", "finetune", "promote"):
        read = {path for path in STAGES[stage]["deps"] if path.startswith("data/")}
        assert read <= {f"data/prepared/{part}" for part in ("split", "train", "validation")}


def test_stages_import_only_the_libraries_that_they_need() -> None:
    heavy = {"tensorflow", "keras", "sklearn", "matplotlib"}
    code = (
        f"import sys\nfor name in sys.argv[1:]: __import__(name); print(name, *{heavy} & sys.modules.keys())"
    )
    stages = ["fetch", "train", "predict", "promote", "report", "prepare", "evaluate"]
    command = [sys.executable, "-c", code, *(f"pipeline.{stage}" for stage in stages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name: set(libraries) for name, *libraries in map(str.split, done.stdout.splitlines())}
    assert imported["pipeline.promote"] == set()  # train: until it has to train
    assert imported["pipeline.report"] <= {"matplotlib"}
    assert imported["pipeline.evaluate"] <= {"sklearn", "matplotlib"}


def test_modules_are_short_and_begin_with_their_purpose() -> None:
    for path in (ROOT / module for module in MODULES):
        source = path.read_text()
        tree = ast.parse(source)
        docstring = ast.get_docstring(tree)
        assert docstring, path
        assert "def main()" not in source or f"python -m pipeline.{path.stem}" in docstring, path
        assert len(source.splitlines()) <= 200, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{path}: {node.name}"


def test_the_package_lists_its_commands_and_folders() -> None:
    documented = set(re.findall(r"(?:^    |  )(\w+)  +\w", pipeline.__doc__ or "", re.MULTILINE))
    top = {path.stem if path.is_file() else path.name for path in (ROOT / "pipeline").glob("[a-z]*")}
    assert documented == {name for name in top if name != "__pycache__"}
    assert {Path(module_of(stage)).stem for stage in STAGES} < documented


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    pairs = [(Path(module).parent, Path(imported).parent) for module, imported in IMPORTS.edges]
    folders = nx.DiGraph(
        (one, other) for one, other in pairs if one != other and Path("pipeline") not in (one, other)
    )
    assert len(folders) > 5
    assert nx.is_directed_acyclic_graph(folders)
