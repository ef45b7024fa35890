"""The quickstart end to end: from a clone to a filled MLflow store and a served champion."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from pipeline.data.images import encode_base64
from pipeline.shared.arrays import read_arrays
from tests.conftest import Clone
from tests.servers import answers, free_port, server

pytestmark = pytest.mark.timeout(900)  # the first test waits for the quickstart

TRAINED = {"baseline-0", "shallow-0", "shallow_subset-0"}


def runs(clone: Clone) -> dict[str, Run]:
    """The finished runs of the experiment by name; a name that stands twice fails the test."""
    client = MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def champion(clone: Clone) -> dict[str, Any]:
    decision: dict[str, Any] = json.loads((clone.folder / "quickstart/champion.json").read_text())
    return decision


def test_it_leaves_the_checkout_as_it_was(clone: Clone) -> None:
    unstaged = clone.run("git", "diff", "--name-only").stdout.split()
    untracked = clone.run("git", "ls-files", "--others", "--exclude-standard").stdout.split()
    assert (unstaged, untracked) == (["README.md"], [])


def test_it_keeps_its_report_and_metrics_where_they_are_found(clone: Clone) -> None:
    folder = clone.folder / "quickstart"
    assert "The champion is" in (folder / "reports/report.md").read_text()
    assert "data:image/png;base64," in (folder / "reports/report.html").read_text()
    assert {path.stem for path in (folder / "metrics").iterdir()} == TRAINED
    assert not (clone.folder / "reports").exists()


def test_mlflow_holds_a_run_for_each_training_and_the_report(clone: Clone) -> None:
    found = runs(clone)
    assert set(found) == TRAINED | {"report"}
    for name in TRAINED:
        metrics = found[name].data.metrics
        scores = json.loads((clone.folder / f"quickstart/metrics/{name}.json").read_text())
        assert metrics["test/accuracy"] == scores["test"]["accuracy"]
        assert metrics["validation/loss"] == pytest.approx(metrics["kept_val_loss"], abs=1e-4)
        assert metrics["validation/accuracy"] == pytest.approx(metrics["kept_val_accuracy"], abs=1e-6)
        artifacts = MlflowClient(clone.store).list_artifacts(found[name].info.run_id, "evaluation")
        assert {"evaluation/confusion.png", "evaluation/confusion.csv", "evaluation/per_class.csv"} <= {
            artifact.path for artifact in artifacts
        }


def test_the_champion_is_the_best_on_validation_data(clone: Clone) -> None:
    scores = {
        name: json.loads((clone.folder / f"quickstart/metrics/{name}.json").read_text()) for name in TRAINED
    }
    best = max(scores, key=lambda name: float(scores[name]["validation"]["accuracy"]))
    version = MlflowClient(clone.store).get_model_version_by_alias("digits", "champion")
    assert f"{version.tags['variant']}-{version.tags['seed']}" == best
    assert float(version.tags["test_accuracy"]) == pytest.approx(scores[best]["test"]["accuracy"], abs=1e-6)


def test_evaluated_scores_come_from_the_stored_predictions(clone: Clone) -> None:
    folder = clone.folder / "quickstart"
    labels = read_arrays(folder / "data/prepared/test")["labels"]
    for name in TRAINED:
        predicted = read_arrays(folder / "predictions" / name)["test"].argmax(axis=1)
        scores = json.loads((folder / f"metrics/{name}.json").read_text())
        assert scores["test"]["accuracy"] == (predicted == labels).mean()
        confusion = pd.read_csv(folder / "evaluation" / name / "confusion.csv", index_col=0)
        assert np.trace(confusion.to_numpy()) == (predicted == labels).sum()


@pytest.fixture(scope="module")
def copy(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy of the quickstart's folder, with an empty MLflow store."""
    return clone.copy_quickstart(tmp_path_factory.mktemp("copy"))


def test_dvc_shows_metrics_and_plots(copy: Clone) -> None:
    assert copy.run("dvc", "metrics", "show").stdout.count("metrics/") == len(TRAINED)
    copy.run("dvc", "plots", "show")
    page = (copy.folder / "dvc_plots/index.html").read_text()
    charts = {f"{part} {measure}" for part in ("training", "validation") for measure in ("accuracy", "loss")}
    for chart in charts | {"mean ROC curve of the classes", "confusion of test images"}:
        assert f'"title": "{chart}"' in page
    assert "DVC_METRIC" not in page  # every anchor of the templates is known


def test_a_second_repro_has_nothing_to_do(copy: Clone) -> None:
    printed = copy.run("python", "-m", "pipeline.repro").stdout
    assert printed == "plan: nothing to run: everything is up to date\n"


def test_sync_fills_an_empty_store(clone: Clone, copy: Clone) -> None:
    copy.run("python", "-m", "pipeline.sync")
    before, after = runs(clone), runs(copy)
    assert set(after) == set(before)
    for name in TRAINED:
        for key in ("test/accuracy", "val_loss", "best_epoch", "kept_val_accuracy"):
            assert after[name].data.metrics[key] == pytest.approx(before[name].data.metrics[key])
        for tag in ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest"):
            assert after[name].data.tags[tag] == before[name].data.tags[tag]
        history = MlflowClient(copy.store).get_metric_history(after[name].info.run_id, "val_loss")
        assert [point.step for point in history] == list(range(len(history)))
    version = MlflowClient(copy.store).get_model_version_by_alias("digits", "champion")
    assert version.tags["variant"] == champion(clone)["variant"]
    assert copy.run("python", "-m", "pipeline.sync").stdout == "sync: nothing was missing\n"


@pytest.fixture(scope="module")
def served(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the champion, served as the quickstart says."""
    port = free_port()
    command = f"mlflow models serve -m models:/digits@champion --env-manager local -p {port}"
    environment = clone.environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    log = tmp_path_factory.mktemp("server") / "log"
    address = f"http://127.0.0.1:{port}"
    with server(command.split(), clone.folder, environment, log, lambda: answers(f"{address}/ping")):
        yield f"{address}/invocations"


def test_served_equals_evaluated_on_the_whole_test_split(clone: Clone, served: str) -> None:
    """The answers over HTTP are the stored predictions, and have the accuracy that `evaluate` reported."""
    name = f"{champion(clone)['variant']}-{champion(clone)['seed']}"
    test = read_arrays(clone.folder / "quickstart/data/prepared/test")
    limit = YAML(typ="safe").load(clone.folder / "params.yaml")["serving"]["batch_limit"]
    rows = [{"image": encode_base64(image)} for image in test["images"]]
    labels: list[str] = []
    confidences: list[float] = []
    for start in range(0, len(rows), limit):
        content: Any = {"dataframe_records": rows[start : start + limit], "params": {"top_k": 1}}
        answers = requests.post(served, json=content, timeout=60).json()["predictions"]
        labels += [answer["label"] for answer in answers]
        confidences += [answer["confidence"] for answer in answers]
    predicted = read_arrays(clone.folder / f"quickstart/predictions/{name}")["test"]
    assert confidences == pytest.approx(predicted.max(axis=1).tolist(), abs=1e-5)
    accuracy = (np.array(labels) == test["labels"].astype(str)).mean()
    scores = json.loads((clone.folder / f"quickstart/metrics/{name}.json").read_text())
    assert accuracy == scores["test"]["accuracy"]


def test_the_printed_commands_work(clone: Clone, served: str) -> None:
    printed = (clone.folder.parent / "quickstart.txt").read_text()

    def command(title: str) -> str:
        [line] = [line for line in printed.splitlines() if line.strip().startswith(title)]
        return line.split(title, 1)[1].strip().replace("http://127.0.0.1:5001/invocations", served)

    answer = clone.run("bash", "-c", command("ask with curl"))
    assert json.loads(answer.stdout)["predictions"][0]["label"] in set("0123456789")
    assert "'label'" in clone.run("bash", "-c", command("or in Python")).stdout
    assert "%" in clone.run("bash", "-c", command("classify")).stdout


def test_rollback_without_a_previous_champion_is_refused(clone: Clone) -> None:
    client, more = MlflowClient(clone.store), {"MLFLOW_TRACKING_URI": clone.store}
    done = clone.run("python", "-m", "pipeline.rollback", folder="quickstart", more=more, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: registered model 'digits' has no version with the alias .*\n", done.stderr)
    assert client.get_model_version_by_alias("digits", "champion").aliases == ["champion"]


def test_no_run_is_left_running(clone: Clone) -> None:
    with closing(sqlite3.connect(clone.folder / "mlflow.db")) as store:
        assert store.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)
