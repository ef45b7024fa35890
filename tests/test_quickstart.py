"""The quickstart end to end: from a clone to a filled MLflow store and a served champion."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from pipeline.data.arrays import read_arrays
from pipeline.data.images import encode_base64
from tests.conftest import Clone
from tests.servers import answers, free_port, server

pytestmark = pytest.mark.timeout(900)  # the first test waits for the quickstart

TRAINED = {"baseline-0", "batchnorm-0", "batchnorm_subset-0", "shallow-0", "translate-0"}


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


def test_mlflow_holds_a_run_a_training_and_the_report(clone: Clone) -> None:
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
        predicted = read_arrays(folder / "evaluation" / name / "probabilities")["test"].argmax(axis=1)
        scores = json.loads((folder / f"metrics/{name}.json").read_text())
        assert scores["test"]["accuracy"] == (predicted == labels).mean()
        confusion = pd.read_csv(folder / "evaluation" / name / "confusion.csv", index_col=0)
        assert np.trace(confusion.to_numpy()) == (predicted == labels).sum()


def test_dvc_shows_metrics_and_plots(clone: Clone) -> None:
    assert clone.run("dvc", "metrics", "show", folder="quickstart").stdout.count("metrics/") == len(TRAINED)
    clone.run("dvc", "plots", "show", folder="quickstart")
    page = (clone.folder / "quickstart/dvc_plots/index.html").read_text()
    assert "confusion.png" in page
    shutil.rmtree(clone.folder / "quickstart/dvc_plots")


def test_a_second_repro_has_nothing_to_do(clone: Clone) -> None:
    done = clone.run("dvc", "repro", folder="quickstart")
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout + done.stderr


def changed_stages(clone: Clone) -> set[str]:
    return set(json.loads(clone.run("dvc", "status", "--json", folder="quickstart").stdout))


@pytest.fixture
def edited(clone: Clone) -> Iterator[Path]:
    """The quickstart's folder, put back afterwards."""
    folder = clone.folder / "quickstart"
    kept = {path: path.read_bytes() for path in [*folder.glob("pipeline/**/*.py"), folder / "params.yaml"]}
    yield folder
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize(
    "module",
    [
        *(f"champion/{name}" for name in ("served_model", "serving", "registry")),
        *("data/images", "scoring/report_text", "scoring/figures", "plan"),
    ],
)
def test_editing_serving_or_reporting_code_retrains_nothing(clone: Clone, edited: Path, module: str) -> None:
    with (edited / f"pipeline/{module}.py").open("a") as file:
        file.write("\n# A change.\n")
    assert not {stage for stage in changed_stages(clone) if stage.startswith(("train", "finetune"))}


def test_editing_a_block_reruns_that_variant_alone(clone: Clone, edited: Path) -> None:
    params = YAML().load(edited / "params.yaml")
    params["variants"]["shallow"]["epochs"] += 1
    YAML().dump(params, edited / "params.yaml")
    training = {stage for stage in changed_stages(clone) if stage.startswith(("train", "finetune"))}
    assert training == {"train@shallow-0"}


def test_a_variant_is_one_function_and_one_block(clone: Clone, tmp_path: Path) -> None:
    copy = clone.copy_quickstart(tmp_path)
    with (copy.folder / "pipeline/learning/networks.py").open("a") as file:
        file.write(
            '\n\ndef tiny() -> list[keras.Layer]:\n    """One dense layer."""\n'
            '    return [layers.Flatten(), layers.Dense(4, activation="relu")]\n'
        )
    params = YAML().load(copy.folder / "params.yaml")
    params["variants"]["tiny"] = dict(params["variants"]["shallow"]) | {"network": "tiny", "epochs": 1}
    YAML().dump(params, copy.folder / "params.yaml")
    copy.run("dvc", "repro", "--single-item", "train@tiny-0")
    copy.run("dvc", "repro", "--single-item", "evaluate@tiny-0")
    assert (copy.folder / "metrics/tiny-0.json").is_file()


def test_sync_brings_back_a_store_that_was_deleted(clone: Clone) -> None:
    before = runs(clone)
    for path in (clone.folder / "mlflow.db", clone.folder / "mlruns"):
        path.rename(path.with_name(f"{path.name}.old"))
    more = {"MLFLOW_TRACKING_URI": clone.store}
    clone.run("python", "-m", "pipeline.sync", folder="quickstart", more=more)
    after = runs(clone)
    assert set(after) == set(before)
    for name in TRAINED:
        for key in ("test/accuracy", "val_loss", "best_epoch", "kept_val_accuracy"):
            assert after[name].data.metrics[key] == pytest.approx(before[name].data.metrics[key])
        for tag in ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest"):
            assert after[name].data.tags[tag] == before[name].data.tags[tag]
        history = MlflowClient(clone.store).get_metric_history(after[name].info.run_id, "val_loss")
        assert [point.step for point in history] == list(range(len(history)))
    version = MlflowClient(clone.store).get_model_version_by_alias("digits", "champion")
    assert version.tags["variant"] == champion(clone)["variant"]
    again = clone.run("python", "-m", "pipeline.sync", folder="quickstart", more=more)
    assert again.stdout == "sync: nothing was missing\n"


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


def test_the_served_champion_answers_what_was_evaluated(clone: Clone, served: str) -> None:
    folder = clone.folder / "quickstart"
    name = f"{champion(clone)['variant']}-{champion(clone)['seed']}"
    expected = read_arrays(folder / "evaluation" / name / "probabilities")["test"]
    images = read_arrays(folder / "data/prepared/test")["images"]
    rows = [{"pixels": image.tolist()} for image in images[:20]]
    answers = requests.post(served, json={"dataframe_records": rows}, timeout=60).json()["predictions"]
    for answer, probabilities in zip(answers, expected, strict=False):
        assert answer["label"] == str(probabilities.argmax())
        assert answer["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-5)
        assert list(answer["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)


def test_served_equals_evaluated_on_the_whole_test_split(clone: Clone, served: str) -> None:
    """The accuracy of the answers over HTTP is the one that `evaluate` reported, to the last digit."""
    name = f"{champion(clone)['variant']}-{champion(clone)['seed']}"
    test = read_arrays(clone.folder / "quickstart/data/prepared/test")
    limit = YAML(typ="safe").load(clone.folder / "params.yaml")["serving"]["batch_limit"]
    rows = [{"image": encode_base64(image)} for image in test["images"]]
    labels: list[str] = []
    for start in range(0, len(rows), limit):
        content: Any = {"dataframe_records": rows[start : start + limit], "params": {"top_k": 1}}
        answers = requests.post(served, json=content, timeout=60).json()["predictions"]
        labels += [answer["label"] for answer in answers]
    accuracy = (np.array(labels) == test["labels"].astype(str)).mean()
    scores = json.loads((clone.folder / f"quickstart/metrics/{name}.json").read_text())
    assert accuracy == scores["test"]["accuracy"]


def test_the_printed_curl_request_works(clone: Clone, served: str) -> None:
    printed = clone.run("python", "-m", "pipeline.quickstart").stdout
    line = next(line for line in printed.splitlines() if "ask with curl" in line)
    command = line.split("ask with curl")[1].strip()
    answer = clone.run("bash", "-c", command.replace("http://127.0.0.1:5001/invocations", served))
    assert json.loads(answer.stdout)["predictions"][0]["label"] in set("0123456789")
    line = next(line for line in printed.splitlines() if "or in Python" in line)
    command = line.split("or in Python")[1].strip()
    answer = clone.run("bash", "-c", command.replace("http://127.0.0.1:5001/invocations", served))
    assert "'label'" in answer.stdout
    line = next(line for line in printed.splitlines() if line.strip().startswith("predict "))
    assert "%" in clone.run(*line.split()[1:]).stdout


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        ([[[0] * 3] * 32] * 31, "32 x 32 x 3"),
        ([[[256] * 3] * 32] * 32, "0 to 255"),
        ([[[-1] * 3] * 32] * 32, "0 to 255"),
        ([[[0.5] * 3] * 32] * 32, "pixels"),
    ],
)
def test_bad_pixels_are_answered_with_400(served: str, pixels: Any, told: str) -> None:
    answer = requests.post(served, json={"dataframe_records": [{"pixels": pixels}]}, timeout=60)
    assert (answer.status_code, told in answer.text) == (400, True)


def test_rollback_without_a_previous_champion_is_refused(clone: Clone) -> None:
    client, more = MlflowClient(clone.store), {"MLFLOW_TRACKING_URI": clone.store}
    done = clone.run("python", "-m", "pipeline.rollback", folder="quickstart", more=more, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: registered model 'digits' has no version with the alias .*\n", done.stderr)
    assert client.get_model_version_by_alias("digits", "champion").aliases == ["champion"]


def test_no_run_is_left_running(clone: Clone) -> None:
    with closing(sqlite3.connect(clone.folder / "mlflow.db")) as store:
        assert store.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)
