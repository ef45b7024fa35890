"""dvc.yaml: what each stage depends on."""

import subprocess
import sys
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from pipeline.__main__ import STAGES as MODULES
from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()
}
GRAPH = grimp.build_graph("pipeline")


def decisive_parts(stage: str) -> set[str]:
    """The parts of the package that a stage imports, directly or not, but for those that change no result.

    Stages that need no metric list the modules of `shared` one by one, so that a new metric leaves them.
    """
    name = STAGES[stage]["cmd"].split()[3]
    module = f"pipeline.{MODULES[name][0]}"
    parts = set()
    for found in {module} | GRAPH.find_upstream_modules(module):
        _, part, *rest = f"{found}.".split(".")
        each = part == "stages" or (part == "shared" and "pipeline/shared" not in STAGES[stage]["deps"])
        parts.add(f"{part}/{rest[0]}" if each else part)
    return parts - {"", "support", "stages/", "shared/"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_code_that_decides_its_outputs(stage: str) -> None:
    listed = {path for path in STAGES[stage]["deps"] if path.startswith("pipeline/")}
    assert all((ROOT / path).exists() for path in listed)
    assert {path.removeprefix("pipeline/").removesuffix(".py") for path in listed} == decisive_parts(stage)


def test_a_new_metric_reruns_what_scores_and_no_stage_before_it() -> None:
    code = ("pipeline/shared", "pipeline/shared/metrics.py")
    readers = {name for name, stage in STAGES.items() if any(path in stage["deps"] for path in code)}
    assert readers == {"evaluate", "select", "promote", "diagnose", "report"}


def test_nothing_is_trained_or_chosen_on_test_images() -> None:
    readers = {name for name, stage in STAGES.items() if "data/prepared/test" in stage["deps"]}
    assert readers == {"predict", "predict_finetuned", "evaluate", "diagnose", "report"}
    for stage in ("train", "finetune", "select", "promote"):
        read = {path for path in STAGES[stage]["deps"] if path.startswith("data/")}
        assert read <= {f"data/prepared/{part}" for part in ("split", "ids", "train", "validation")}


def test_stages_import_only_the_libraries_that_they_need() -> None:
    heavy = {"tensorflow", "keras", "sklearn", "matplotlib"}
    code = (
        f"import sys\nfor name in sys.argv[1:]: __import__(name); print(name, *{heavy} & sys.modules.keys())"
    )
    stages = ["fetch", "train", "predict", "select", "promote", "report", "prepare", "evaluate"]
    command = [sys.executable, "-c", code, *(f"pipeline.{MODULES[stage][0]}" for stage in stages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name: set(libraries) for name, *libraries in map(str.split, done.stdout.splitlines())}
    assert imported["pipeline.stages.promote.stage"] == set()  # train: until it has to train
    assert imported["pipeline.stages.report.stage"] <= {"matplotlib"}
    assert imported["pipeline.stages.evaluate.stage"] <= {"sklearn", "matplotlib"}
