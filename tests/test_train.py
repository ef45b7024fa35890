"""The training stage as a user runs it: its files, its MLflow run, and its refusals."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import LoggedModelStatus, Run
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from pipeline import train
from pipeline.champion.selection import read_scores
from pipeline.data.arrays import file_digest, read_arrays, read_facts
from pipeline.errors import PipelineError
from pipeline.learning import models

ROOT = Path(__file__).parent.parent
EPOCHS = 2
pytestmark = pytest.mark.timeout(900)  # the first test waits for three trainings, on a busy machine too
DIGESTS = ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest")


def tiny_params() -> dict[str, Any]:
    """The repository's params.yaml, cut down to two small variants, and one fine-tuned, on digits."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"source": "digits", "name": None}
    stopping = {"monitor": "val_loss", "patience": 5, "restore_best_weights": True}
    shallow = params["variants"]["shallow"] | {"epochs": EPOCHS}
    frozen = {"optimizer": {"name": "sgd", "learning_rate": 1e-9}, "training_images": 300}
    params["variants"] = {
        "shallow": shallow | {"early_stopping": stopping},
        "translate": params["variants"]["translate"] | {"epochs": EPOCHS},
        "runaway": shallow | {"optimizer": {"name": "sgd", "learning_rate": 1e30}},
    }
    params["finetune"] = {"init_from": "shallow", "variants": {"shallow_subset": shallow | frozen}}
    return params


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m pipeline.COMMAND` in a project."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db", "PYTHONPATH": str(ROOT)}
    module, *arguments = command
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{module}", *arguments],
        cwd=project,
        env=kept | store | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing is trained yet."""
    project = tmp_path_factory.mktemp("prepared")
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    for stage in ("fetch", "prepare", "precision"):
        run(project, stage).check_returncode()
    return project


@dataclass(frozen=True)
class Trained:
    """A project with shallow trained twice, the second time under another run, then fine-tuned, and with
    a training that runs away."""

    project: Path
    client: MlflowClient
    output: str
    parent: str
    first: dict[str, bytes]
    second: dict[str, bytes]

    def runs(self, name: str) -> list[Run]:
        """The runs of that name, the oldest first."""
        experiment = self.client.get_experiment_by_name("digits")
        assert experiment is not None
        found = self.client.search_runs(
            [experiment.experiment_id], f"run_name = '{name}'", order_by=["attributes.start_time ASC"]
        )
        return list(found)


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    project = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(prepared, project)
    output = run(project, "train", "shallow", "0")
    output.check_returncode()
    first = contents(project / "models" / "shallow-0")
    with contextlib.chdir(project):  # a client makes ./mlruns
        client = MlflowClient(f"sqlite:///{project}/mlflow.db")
        parent = client.create_run("0", run_name="mlflow run").info.run_id
    shutil.rmtree(project / ".pipeline/checkpoints")  # as evaluate does: what follows is another training
    outer = {"MLFLOW_RUN_ID": parent, "MLFLOW_EXPERIMENT_ID": "0"}
    run(project, "train", "shallow", "0", **outer).check_returncode()
    second = contents(project / "models" / "shallow-0")
    run(project, "train", "shallow_subset", "0").check_returncode()
    run(project, "train", "runaway", "0").check_returncode()
    return Trained(project, client, output.stdout, parent, first, second)


@pytest.fixture
def shallow(trained: Trained) -> Run:
    return trained.runs("shallow-0")[0]


def test_output_is_a_line_an_epoch_and_the_result(trained: Trained) -> None:
    *epochs, result = trained.output.splitlines()
    assert [line.split("  ")[:2] for line in epochs] == [["shallow", "epoch 1/2"], ["shallow", "epoch 2/2"]]
    assert result.startswith("shallow-0: validation accuracy 0.")


def test_run_is_finished_and_tagged_with_what_made_it(trained: Trained, shallow: Run) -> None:
    assert shallow.info.status == "FINISHED"
    assert (shallow.data.tags["variant"], shallow.data.tags["seed"]) == ("shallow", "0")
    assert shallow.data.tags["git_commit"]
    assert {len(shallow.data.tags[key]) for key in DIGESTS} == {64}
    facts = read_facts(trained.project / "data/prepared/split")
    assert shallow.data.tags["data_digest"] == facts["data_digest"]
    assert shallow.data.tags["split_digest"] == facts["split_digest"]


def test_model_digest_is_that_of_the_file(trained: Trained) -> None:
    latest = trained.runs("shallow-0")[-1]
    file = trained.project / "models/shallow-0/model.keras"
    assert latest.data.tags["model_digest"] == file_digest(file)


@pytest.mark.parametrize("metric", ["loss", "accuracy", "val_loss", "val_accuracy"])
def test_metrics_of_every_epoch_are_logged(trained: Trained, shallow: Run, metric: str) -> None:
    logged = trained.client.get_metric_history(shallow.info.run_id, metric)
    history = pd.read_csv(trained.project / "models/shallow-0/history.csv", index_col="epoch")
    assert list(history.index) == [1, 2]
    assert [point.step for point in logged] == list(range(EPOCHS))
    assert [point.value for point in logged] == pytest.approx(list(history[metric]))


def test_figures_of_the_kept_weights_are_logged(trained: Trained, shallow: Run) -> None:
    metrics = shallow.data.metrics
    assert metrics["stopped_epoch"] == EPOCHS
    history = pd.read_csv(trained.project / "models/shallow-0/history.csv", index_col="epoch")
    assert metrics["best_epoch"] == history.val_loss.idxmin()
    assert metrics["best_val_accuracy"] == pytest.approx(history.val_accuracy.max())
    assert metrics["parameters"] == 66_170
    assert metrics["wall_seconds"] > 0
    assert metrics["cpu_seconds"] > 0


def test_kept_accuracy_is_that_of_the_models_file(trained: Trained, shallow: Run) -> None:
    model = models.load(trained.project / "models/shallow-0/model.keras")
    validation = read_arrays(trained.project / "data/prepared/validation")
    correct = models.probabilities(model, validation["images"]).argmax(axis=1) == validation["labels"]
    assert shallow.data.metrics["kept_val_accuracy"] == pytest.approx(correct.mean())


def test_params_are_those_of_the_variant_and_of_fit(shallow: Run) -> None:
    params = shallow.data.params
    ours = {key: value for key, value in params.items() if key.startswith("variant.")}
    assert ours == {
        "variant.network": "shallow",
        "variant.optimizer.name": "adam",
        "variant.optimizer.learning_rate": "0.001",
        "variant.batch_size": "32",
        "variant.epochs": "2",
        "variant.early_stopping.monitor": "val_loss",
        "variant.early_stopping.patience": "5",
        "variant.early_stopping.restore_best_weights": "True",
        "variant.threads": "1",
        "variant.precision": "float32",
    }
    assert (params["epochs"], params["optimizer_name"]) == ("2", "adam")


def test_data_are_logged_as_inputs_with_their_digest(shallow: Run) -> None:
    assert shallow.inputs is not None
    inputs = {entry.tags[0].value: entry.dataset for entry in shallow.inputs.dataset_inputs}
    assert set(inputs) == {"training", "validation"}
    for context, dataset in inputs.items():
        assert dataset.name == f"digits-{context}"
        assert dataset.digest == shallow.data.tags["split_digest"][:36]


def logged_model(trained: Trained, run: Run) -> Path:
    """The folder of the only model that a run logged, which is ready."""
    assert run.outputs is not None
    [output] = run.outputs.model_outputs
    logged = trained.client.get_logged_model(output.model_id)
    assert logged.status == LoggedModelStatus.READY
    return Path(logged.artifact_location.removeprefix("file://"))


def test_logged_model_is_signed_for_pixels_and_has_an_example(trained: Trained, shallow: Run) -> None:
    info = Model.load(str(logged_model(trained, shallow)))
    [pixels], [probabilities] = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (pixels.type, pixels.shape) == (np.dtype("uint8"), (-1, 32, 32, 3))
    assert (probabilities.type, probabilities.shape) == (np.dtype("float32"), (-1, 10))
    assert info.saved_input_example_info is not None


def test_logged_model_gives_the_probabilities_of_the_models_file(trained: Trained, shallow: Run) -> None:
    images = np.array(read_arrays(trained.project / "data/prepared/validation")["images"][:5])
    logged = mlflow.pyfunc.load_model(str(logged_model(trained, shallow)))
    kept = models.load(trained.project / "models/shallow-0/model.keras")
    assert np.allclose(logged.predict(images), models.probabilities(kept, images), atol=1e-6)


def test_the_models_summary_is_an_artifact(shallow: Run) -> None:
    folder = Path(shallow.info.artifact_uri.removeprefix("file://"))
    assert "66,170" in (folder / "model_summary.txt").read_text()


def test_training_again_gives_the_same_history_and_record(trained: Trained) -> None:
    assert set(trained.first) == {"history.csv", "model.keras", "training.json"}
    for name in ("history.csv", "training.json"):
        assert trained.first[name] == trained.second[name]


def test_training_again_gives_the_same_model_file(trained: Trained) -> None:
    assert trained.first["model.keras"] == trained.second["model.keras"]


def test_no_file_names_its_run(trained: Trained) -> None:
    for one in trained.runs("shallow-0"):
        assert not any(one.info.run_id.encode() in content for content in trained.second.values())


def test_record_holds_tags_params_and_metrics_of_the_run(trained: Trained, shallow: Run) -> None:
    record = json.loads(trained.first["training.json"])
    assert record["tags"].items() <= shallow.data.tags.items()
    assert record["metrics"].items() <= shallow.data.metrics.items()
    assert {f"variant.{key}": str(value) for key, value in record["params"].items()} == {
        key: value for key, value in shallow.data.params.items() if key.startswith("variant.")
    }


def test_finetuned_variant_starts_from_the_others_weights(trained: Trained) -> None:
    base, tuned = (
        models.load(trained.project / "models" / name / "model.keras").get_weights()
        for name in ("shallow-0", "shallow_subset-0")
    )
    for start, end in zip(base, tuned, strict=True):
        assert np.allclose(start, end, atol=1e-5)
    record = json.loads((trained.project / "models/shallow_subset-0/training.json").read_text())
    assert record["tags"]["variant"] == "shallow_subset"
    assert record["params"]["training_images"] == 300


def test_the_last_line_tells_a_trained_model_even_without_a_right_answer() -> None:
    record = {"tags": {"status": "trained"}, "metrics": {"kept_val_accuracy": 0.0}}
    assert train.result(record) == "validation accuracy 0.0000"


def test_diverged_training_is_a_result_with_its_reason(trained: Trained) -> None:
    record = json.loads((trained.project / "models/runaway-0/training.json").read_text())
    [diverged] = trained.runs("runaway-0")
    assert diverged.info.status == "FINISHED"
    for tags in (record["tags"], diverged.data.tags):
        assert (tags["status"], tags["reason"]) == ("diverged", "its loss is nan in epoch 1")
    assert record["metrics"] == {"stopped_epoch": 1, "parameters": 66_170}
    assert diverged.outputs is None or not diverged.outputs.model_outputs


def test_diverged_training_is_evaluated_to_all_files_and_no_scores(trained: Trained) -> None:
    project = trained.project
    for name in ("runaway", "shallow"):
        run(project, "evaluate", name, "0").check_returncode()
    metrics = json.loads((project / "metrics/runaway-0.json").read_text())
    assert metrics == {"status": "diverged", "reason": "its loss is nan in epoch 1"}
    ended, other = (contents(project / "evaluation" / name) for name in ("runaway-0", "shallow-0"))
    assert set(ended) == set(other)
    for table in ("confusion", "most_confused", "per_class", "predictions", "roc"):
        header = other[f"{table}.csv"].splitlines()[0]
        assert ended[f"{table}.csv"].splitlines() == [header]


def test_diverged_training_is_passed_over(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.project)
    scores = read_scores([("runaway", 0), ("shallow", 0)])
    assert scores["variant"].tolist() == ["shallow"]
    with pytest.raises(PipelineError, match="every training diverged"):
        read_scores([("runaway", 0)])


def test_outer_run_becomes_the_parent_and_is_not_written_into(trained: Trained) -> None:
    alone, inner = trained.runs("shallow-0")
    assert "mlflow.parentRunId" not in alone.data.tags
    assert inner.data.tags["mlflow.parentRunId"] == trained.parent
    outer = trained.client.get_run(trained.parent)
    assert (outer.info.status, outer.info.experiment_id) == ("RUNNING", "0")
    assert (outer.data.metrics, outer.data.params) == ({}, {})
    assert "variant" not in outer.data.tags


def test_finetuning_without_the_others_model_ends_with_one_line(prepared: Path) -> None:
    ended = run(prepared, "train", "shallow_subset", "0")
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line == "error: models/shallow-0/model.keras: No such file or directory"
    assert not (prepared / "models").exists()
    assert not (prepared / "mlflow.db").exists()


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared project, as the working directory."""
    copy = tmp_path / "project"
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def refusal(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A call that changes keys of params.yaml and gives the line with which training refuses."""

    def refuse(name: str, **changes: dict[str, Any]) -> str:
        params = tiny_params()
        params["variants"]["shallow"] |= changes.get("shallow", {})
        params["training"] |= changes.get("training", {})
        Path("params.yaml").write_text(yaml.safe_dump(params))
        monkeypatch.setattr(sys, "argv", ["train", name, "0"])
        with pytest.raises(SystemExit) as ended:
            train.main()
        files = sorted(path.name for path in project.iterdir() if path.name != ".pipeline")
        assert files == ["data", "params.yaml", "precision.json"]
        line = ended.value.code
        assert isinstance(line, str)  # Python prints it and exits with status 1
        assert "\n" not in line
        return line

    return refuse


def test_unknown_variant_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("resnet") == (
        "error: params.yaml: no variant 'resnet'; allowed: runaway, shallow, shallow_subset, translate"
    )


@pytest.mark.parametrize("key", ["batch_size", "training_images"])
def test_more_images_than_there_are_are_refused(refusal: Callable[..., str], key: str) -> None:
    line = refusal("shallow", shallow={key: 1_294})
    assert line == f"error: params.yaml: shallow.{key}: at most the 1293 training images; received 1294"


@pytest.mark.parametrize("package", ["tensorflow", "keras"])
def test_another_version_than_params_name_is_refused(refusal: Callable[..., str], package: str) -> None:
    line = refusal("shallow", training={package: "1.2.3"})
    assert line.startswith(f"error: params.yaml: training.{package} is '1.2.3', but ")


@pytest.mark.parametrize("part", ["train", "validation"])
def test_damaged_images_are_refused(refusal: Callable[..., str], part: str) -> None:
    file = Path(f"data/prepared/{part}/images.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert refusal("shallow").startswith(f"error: {file}: damaged: expected SHA-256 ")


def test_missing_data_are_refused(refusal: Callable[..., str]) -> None:
    shutil.rmtree("data/prepared/split")
    assert refusal("shallow").startswith("error: data/prepared/split/manifest.json: cannot be read: ")
