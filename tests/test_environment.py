"""pyproject.toml, the lock, conda.yaml and params.yaml name the same environment."""

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from ruamel.yaml import YAML

from tests.conftest import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()
DEMO_LOCK = (ROOT / "requirements-demo.lock").read_text()
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


@pytest.mark.parametrize(("lock", "least"), [(LOCK, 100), (DEMO_LOCK, 20)], ids=["", "demo"])
def test_a_lock_has_a_hash_for_every_package_and_no_address(lock: str, least: int) -> None:
    packages = re.findall(r"^\S+==.*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\S+==", lock, re.MULTILINE)) > least
    assert "://" not in lock


def test_the_pages_lock_adds_to_the_lock_and_moves_nothing_in_it() -> None:
    for text in PYPROJECT["dependency-groups"]["demo"]:
        requirement = Requirement(text)
        for python in PYTHONS:
            assert locked(requirement.name, python, DEMO_LOCK) in requirement.specifier, text
    pins = [set(re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE)) for lock in (LOCK, DEMO_LOCK)]
    names = {name for name, _ in pins[0]}
    both = {(name, version) for name, version in pins[1] if name in names}
    assert both
    assert both <= pins[0]


def test_conda_installs_the_lock_on_a_python_that_the_project_allows() -> None:
    conda = YAML(typ="safe").load(ROOT / "conda.yaml")
    python, pip, pinned = conda["dependencies"]
    assert python.removeprefix("python=") in PYTHONS
    assert Version(python.removeprefix("python=")) in SpecifierSet(PROJECT["requires-python"])
    assert (pip, pinned) == ("pip", {"pip": ["-r requirements.lock"]})
    assert conda["name"] == PROJECT["name"]


def test_params_name_the_locked_tensorflow_and_keras() -> None:
    training = YAML(typ="safe").load(ROOT / "params.yaml")["training"]
    for package in ("tensorflow", "keras"):
        assert training[package] == str(locked(package, "3.11"))
