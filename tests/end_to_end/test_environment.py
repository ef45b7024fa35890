"""pyproject.toml, the lock, conda.yaml and params.yaml name one environment; MLproject runs the stages."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.environment import _PythonEnv
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from ruamel.yaml import YAML

from tests.conftest import ROOT, Clone
from tests.projects import Project

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PYTHONS = ("3.11", "3.12", "3.13")


def locked(name: str, python: str, lock: str = LOCK) -> Version:
    """The version of a package that a lock gives a Python."""
    lines = re.findall(rf"^{re.escape(name)}==(\S+)(?: ; (.*?))? \\$", lock, re.MULTILINE)
    environment = {"python_full_version": f"{python}.0", "python_version": python}
    fitting = [
        version
        for version, marker in lines
        if not marker or Requirement(f"x ; {marker}").marker.evaluate(environment)  # type: ignore[union-attr]
    ]
    assert len(fitting) == 1, (name, python, lines)
    return Version(fitting[0])


def test_the_lock_holds_every_dependency_at_an_allowed_version() -> None:
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        for python in PYTHONS:
            assert locked(requirement.name, python) in requirement.specifier, text


@pytest.mark.parametrize("group", PYPROJECT["dependency-groups"])
def test_the_lock_of_a_group_adds_to_the_lock_and_moves_nothing_in_it(group: str) -> None:
    added = (ROOT / f"requirements-{group}.lock").read_text()
    for text in PYPROJECT["dependency-groups"][group]:
        requirement = Requirement(text)
        for python in PYTHONS:
            assert locked(requirement.name, python, added) in requirement.specifier, text
    pins = [set(re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE)) for lock in (LOCK, added)]
    names = {name for name, _ in pins[0]}
    both = {(name, version) for name, version in pins[1] if name in names}
    assert both
    assert both <= pins[0]


def test_conda_and_python_env_install_the_lock_on_a_python_that_the_project_allows() -> None:
    conda = YAML(typ="safe").load(ROOT / "conda.yaml")
    python, pip, pinned = conda["dependencies"]
    version = python.removeprefix("python=")
    assert version in PYTHONS
    assert Version(version) in SpecifierSet(PROJECT["requires-python"])
    assert (pip, pinned) == ("pip", {"pip": ["-r requirements.lock"]})
    assert conda["name"] == PROJECT["name"]
    expected = {"python": version, "build_dependencies": [pip], "dependencies": pinned["pip"]}
    for read, name in ((_PythonEnv.from_yaml, "python_env"), (_PythonEnv.from_conda_yaml, "conda")):
        assert read(ROOT / f"{name}.yaml").to_dict() == expected


def test_params_name_the_locked_tensorflow_and_keras() -> None:
    training = YAML(typ="safe").load(ROOT / "params.yaml")["training"]
    for package in ("tensorflow", "keras"):
        assert training[package] == str(locked(package, "3.11"))


MLPROJECT: dict[str, Any] = YAML(typ="safe").load(ROOT / "MLproject")
STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


@pytest.mark.parametrize("name", MLPROJECT["entry_points"])
def test_every_parameter_is_forwarded_and_every_placeholder_is_declared(name: str) -> None:
    entry = MLPROJECT["entry_points"][name]
    assert set(re.findall(r"{(\w+)}", entry["command"])) == set(entry.get("parameters", {}))


def test_there_is_an_entry_point_for_every_stage_and_the_whole() -> None:
    own_name = STAGES.keys() - {"watch", "predict_finetuned"}  # which others run with them
    others = {"main", "quickstart", "sync", "champion", "search", "classify"}
    assert set(MLPROJECT["entry_points"]) == own_name | others


@pytest.mark.faults  # half a minute of CPU time
def test_mlflow_run_trains_the_variant_and_seed_that_it_is_given(clone: Clone, tmp_path: Path) -> None:
    """And the run that `mlflow run` makes becomes the training's parent; nothing is written into it."""
    copy = clone.copy_quickstart(tmp_path)
    project = (ROOT / "MLproject").read_text().replace("dvc repro train@", "dvc repro --single-item train@")
    (copy.folder / "MLproject").write_text(project)
    (copy.folder / "conda.yaml").write_text((ROOT / "conda.yaml").read_text())
    params = YAML().load(copy.folder / "params.yaml")
    params["seeds"], params["variants"]["shallow"]["epochs"] = [0, 3], 1
    YAML().dump(params, copy.folder / "params.yaml")
    command = "mlflow run . --env-manager local -e train -P variant=shallow -P seed=3"
    copy.run(*command.split())
    runs = {run.data.tags.get("variant", "project"): run for run in Project(copy.folder).runs()}
    assert set(runs) == {"shallow", "project"}
    trained, project_run = runs["shallow"], runs["project"]
    assert trained.data.tags["seed"] == "3"
    assert trained.data.tags["mlflow.parentRunId"] == project_run.info.run_id
    assert not project_run.data.metrics
    assert project_run.info.status == "FINISHED"
