"""MLproject: what it declares is what it runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Clone
from tests.jobs import Job

pytestmark = pytest.mark.timeout(900)  # the first test may wait for the quickstart

PROJECT: dict[str, Any] = YAML(typ="safe").load(ROOT / "MLproject")
STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def test_it_has_no_key_that_mlflow_would_silently_ignore() -> None:
    assert set(PROJECT) == {"name", "conda_env", "entry_points"}
    assert (ROOT / PROJECT["conda_env"]).is_file()
    for entry in PROJECT["entry_points"].values():
        assert set(entry) <= {"parameters", "command"}
        for parameter in entry.get("parameters", {}).values():
            assert set(parameter) <= {"type", "default"}


@pytest.mark.parametrize("name", PROJECT["entry_points"])
def test_every_parameter_is_forwarded_and_every_placeholder_is_declared(name: str) -> None:
    entry = PROJECT["entry_points"][name]
    assert set(re.findall(r"{(\w+)}", entry["command"])) == set(entry.get("parameters", {}))


def test_there_is_an_entry_point_for_every_stage_and_the_whole() -> None:
    own_name = STAGES.keys() - {"watch", "predict_finetuned"}  # which others run with them
    assert set(PROJECT["entry_points"]) == own_name | {"main", "quickstart", "sync", "classify"}


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
    runs = {run.data.tags.get("variant", "project"): run for run in Job(copy.folder).runs()}
    assert set(runs) == {"shallow", "project"}
    trained, project_run = runs["shallow"], runs["project"]
    assert trained.data.tags["seed"] == "3"
    assert trained.data.tags["mlflow.parentRunId"] == project_run.info.run_id
    assert not project_run.data.metrics
    assert project_run.info.status == "FINISHED"
