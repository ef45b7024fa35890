"""The quickstart end to end: from a clone to a filled MLflow store. `test_serving` asks its champion."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import LoggedModel, Run

from pipeline.commands.job_folder import next_steps
from tests.called import call
from tests.conftest import Clone
from tests.projects import Project, copied

TRAINED = {"speedrun-0", "shallow-0", "shallow_subset-0"}


@pytest.fixture(scope="module")
def job(clone: Clone) -> Project:
    """The quickstart's folder, and the store of its checkout."""
    return Project(clone.folder / "quickstart", {"MLFLOW_TRACKING_URI": clone.store})


@pytest.fixture(scope="module")
def copy(job: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the folder, with an empty MLflow store."""
    return copied(job, tmp_path_factory.mktemp("copy") / "copy")


@pytest.fixture(scope="module")
def scores(job: Project) -> dict[str, Any]:
    """What `evaluate` wrote of each model."""
    return {name: json.loads((job.folder / f"metrics/{name}.json").read_text()) for name in TRAINED}


def runs(job: Project) -> dict[str, Run]:
    """The runs by name, all finished; a name that stands twice fails the test."""
    found = job.runs()
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sorted(run.info.run_name or "" for run in found) == sorted(TRAINED | {"report"})
    return {str(run.info.run_name): run for run in found}


def logged_models(job: Project, run: Run) -> list[LoggedModel]:
    """The models that a run logged."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return list(job.client.search_logged_models([run.info.experiment_id], condition))


def test_it_leaves_the_checkout_as_it_was_and_its_report_and_metrics_in_its_folder(clone: Clone) -> None:
    unstaged = clone.run("git", "diff", "--name-only").stdout.split()
    untracked = clone.run("git", "ls-files", "--others", "--exclude-standard").stdout.split()
    assert (unstaged, untracked) == (["README.md"], [])
    folder = clone.folder / "quickstart"
    assert "The chosen model is" in (folder / "reports/report.md").read_text()
    assert "data:image/png;base64," in (folder / "reports/report.html").read_text()
    assert {path.stem for path in (folder / "metrics").iterdir()} == TRAINED
    assert not (clone.folder / "reports").exists()


def test_each_training_has_a_run_whose_scores_name_their_model_and_images(
    job: Project, scores: dict[str, Any]
) -> None:
    found = runs(job)
    for name in TRAINED:
        run = found[name]
        for part in ("validation", "test"):
            for key, value in scores[name][part].items():
                assert run.data.metrics[f"{part}/{key}"] == value
        [trained] = [model for model in logged_models(job, run) if model.name == name]
        images = {metric.key: metric.dataset_name for metric in trained.metrics or []}
        for part in ("validation", "test"):
            assert images[f"{part}/accuracy"] == f"digits-{part}"
        assert "val_accuracy" not in images  # which is of an epoch


def test_all_runs_have_the_same_parameters_but_those_of_their_variant(job: Project) -> None:
    params = {name: set(run.data.params) for name, run in runs(job).items() if name in TRAINED}
    for names in params.values():
        assert {"variant", "seed", "batch_size", "epochs", "network", "optimizer", "threads"} <= names
        assert not {"classes", "batch_limit", "shuffle", "initial_epoch"} & names
    starts = {name: run.data.params.get("init_from") for name, run in runs(job).items()}
    assert starts == {"shallow_subset-0": "shallow"} | dict.fromkeys(["shallow-0", "speedrun-0", "report"])


def test_the_champion_is_the_best_on_validation_data(job: Project, scores: dict[str, Any]) -> None:
    best = max(scores, key=lambda name: float(scores[name]["validation"]["accuracy"]))
    version = job.client.get_model_version_by_alias("digits", "champion")
    assert f"{version.tags['variant']}-{version.tags['seed']}" == best
    assert float(version.tags["test_accuracy"]) == pytest.approx(scores[best]["test"]["accuracy"], abs=1e-6)
    assert job.client.get_registered_model("digits").aliases.keys() == {"champion"}
    links = {model.name: model.tags["mlflow.modelVersions"] for model in logged_models(job, runs(job)[best])}
    assert links[best] == links[f"{best}-served"]


def test_its_champion_is_shown_from_the_checkout(clone: Clone) -> None:
    shown = call(clone.folder, "--job", "quickstart", "champion", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert shown.out.startswith("digits: version 1 is champion, ")
    refused = call(clone.folder, "--job", "elsewhere", "champion").refusal
    assert refused == "--job: elsewhere has no params.yaml; jobs are quickstart and jobs/NAME"


def test_what_is_next_names_a_champion_only_if_there_is_one(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for store, title, served in (
        (clone.store, "[bold]Done.[/] ", 5),
        (f"sqlite:///{tmp_path}/x.db", "no model", 0),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        text = next_steps(Path("quickstart"), "digits", "digit.png", "the real job")
        assert title in text
        assert (
            len(re.findall("^  (classify|on a page|serve|ask with curl|or in Python) ", text, re.MULTILINE))
            == served
        )
        assert text.endswith("\n  the real job")


def test_the_champion_and_the_next_best_are_diagnosed(job: Project) -> None:
    table = pd.read_csv(job.folder / "diagnosis/robustness.csv")
    assert len(table["model"].unique()) == 2
    assert set(table["model"]) < TRAINED
    version = job.client.get_model_version_by_alias("digits", "champion")
    assert table["model"].iloc[0] == f"{version.tags['variant']}-{version.tags['seed']}"
    assert table["accuracy"].iloc[0] == pytest.approx(float(version.tags["test_accuracy"]), abs=1e-6)


def test_dvc_tells_without_the_data_whether_the_results_are_current(job: Project, tmp_path: Path) -> None:
    """As continuous integration asks, of a clone that has dvc.lock."""
    clone = copied(job, tmp_path / "clone")
    for path in (*clone.outs(), ".dvc/cache"):
        shutil.move(clone.folder / path, tmp_path / path.replace("/", "-"))
    for folder in ("models", "predictions"):
        (clone.folder / folder).rmdir()
    command = ("dvc", "repro", "--dry", "--allow-missing")
    assert clone.run(*command).endswith("Data and pipelines are up to date.\n")
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 4", "epochs: 5"))
    assert "failed to reproduce 'recipes'" in clone.run(*command, check=False)


def test_dvc_shows_metrics_and_plots(copy: Project) -> None:
    header, *rows = copy.run("dvc", "metrics", "show").splitlines()
    assert len(rows) == 2 * len(TRAINED)  # validation and test
    assert max(map(len, rows)) <= 140
    scores = {row.split()[0]: map(float, row.split()[1:]) for row in rows}
    found = dict(zip(header.split()[1:], scores["evaluation/scores/speedrun-0-test.json"], strict=True))
    wanted = json.loads((copy.folder / "metrics/speedrun-0.json").read_text())["test"]
    assert found == pytest.approx({name: wanted[name] for name in found}, abs=1e-5)
    assert {"accuracy", "loss"} < found.keys()
    copy.run("dvc", "plots", "show")
    page = (copy.folder / "dvc_plots/index.html").read_text()
    assert "<img" not in page
    charts = {f"{part} {measure}" for part in ("training", "validation") for measure in ("accuracy", "loss")}
    for chart in charts | {"mean ROC curve of the classes", "confusion of test images"}:
        assert f'"title": "{chart}"' in page
    assert "DVC_METRIC" not in page  # every anchor of the templates is known


def test_a_second_repro_has_nothing_to_do(copy: Project) -> None:
    printed = copy.run("python", "-m", "pipeline", "repro")
    assert printed == "plan: nothing to run: everything is up to date\n"
