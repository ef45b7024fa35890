"""The training stage as a user runs it: its files, its MLflow run, and its refusals."""

import contextlib
import io
import json
import os
import shutil
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
from mlflow.models import Model as LoggedModel
from mlflow.tracking import MlflowClient

from pipeline import fetch, predict, prepare, recipes, train
from pipeline.learning import hardware, model_file
from pipeline.learning.backend import keras
from pipeline.shared.arrays import file_digest, read_arrays, read_facts, write_json
from pipeline.shared.trained import Trained as Model
from pipeline.training import body
from tests.jobs import small_params

EPOCHS = 2
pytestmark = pytest.mark.timeout(900)  # the first test waits for trainings, on a busy machine too
DIGESTS = ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest")
SCORES = {"loss", "accuracy", "val_loss", "val_accuracy"}


def tiny_params() -> dict[str, Any]:
    """On digits: two variants, one of which diverges, a fine-tuned one, and a small speedrun."""
    stopping = {"monitor": "val_loss", "patience": 5, "restore_best_weights": True}
    params = small_params(shallow={"epochs": EPOCHS, "early_stopping": stopping}, speedrun={"epochs": EPOCHS})
    shallow, speedrun = params["variants"]["shallow"], params["variants"]["speedrun"]
    speedrun |= {"network": {"name": "speedrun", "widths": [8, 8, 8]}, "precision": "float32"}
    speedrun |= {"batch_size": 128, "whitening": {"images": 100, "epochs": 1}}
    params["variants"]["runaway"] = shallow | {"optimizer": {"name": "sgd", "learning_rate": 1e30}}
    frozen = {"optimizer": {"name": "sgd", "learning_rate": 1e-9}, "training_images": 300}
    params["finetune"] = {"init_from": "shallow", "variants": {"shallow_subset": shallow | frozen}}
    return params


def seed_only(seed: int, *_: Any) -> None:
    """`make_deterministic` in a process in which TensorFlow runs already, so its threads stay."""
    keras.utils.set_random_seed(seed)


def run(stage: Any, variant: str, **environment: str) -> str:
    """What a stage prints for a variant with seed 0, in the folder of its project and in this process."""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{Path.cwd()}/mlflow.db"} | environment
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", ["stage", variant, "0"])
        patch.setattr(body, "make_deterministic", seed_only)
        patch.setattr(hardware, "make_deterministic", seed_only)
        for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
            patch.delenv(key)
        for key, value in store.items():
            patch.setenv(key, value)
        mlflow.set_tracking_uri(store["MLFLOW_TRACKING_URI"])
        try:
            stage.main()
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # or it would count in later tests, too
    return printed.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing is trained yet."""
    project = tmp_path_factory.mktemp("prepared")
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    with contextlib.chdir(project), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stage"])
        for stage in (fetch, prepare, recipes):
            stage.main()
    return project


@dataclass(frozen=True)
class Trained:
    """A project with shallow trained twice, the second time under another run, then fine-tuned; with a
    training that runs away, and a speedrun and its predictions."""

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
    with contextlib.chdir(project):  # a client makes ./mlruns
        printed = run(train, "shallow")
        first = contents(project / "models" / "shallow-0")
        client = MlflowClient(f"sqlite:///{project}/mlflow.db")
        parent = client.create_run("0", run_name="mlflow run").info.run_id
        shutil.rmtree(project / ".pipeline/checkpoints")  # or the training would resume at its end
        run(train, "shallow", MLFLOW_RUN_ID=parent, MLFLOW_EXPERIMENT_ID="0")
        for name in ("runaway", "shallow_subset", "speedrun"):
            run(train, name)
        run(predict, "speedrun")
    return Trained(project, client, printed, parent, first, contents(project / "models" / "shallow-0"))


@pytest.fixture
def shallow(trained: Trained) -> Run:
    return trained.runs("shallow-0")[0]


def history_of(trained: Trained) -> pd.DataFrame:
    return pd.read_csv(trained.project / "models/shallow-0/history.csv", index_col="epoch")


def record_of(trained: Trained, name: str) -> dict[str, Any]:
    return json.loads((trained.project / "models" / name / "training.json").read_text())


def logged_model(trained: Trained, run: Run) -> Path:
    """The folder of the only model that a run logged, which is ready."""
    assert run.outputs is not None
    [output] = run.outputs.model_outputs
    logged = trained.client.get_logged_model(output.model_id)
    assert logged.status == LoggedModelStatus.READY
    return Path(logged.artifact_location.removeprefix("file://"))


def test_output_is_a_line_an_epoch_and_the_result(trained: Trained) -> None:
    *epochs, result = trained.output.splitlines()
    assert [line.split("  ")[:2] for line in epochs] == [["shallow", "epoch 1/2"], ["shallow", "epoch 2/2"]]
    assert result.startswith("shallow-0: validation accuracy 0.")


def test_run_is_finished_and_tagged_with_what_made_it(trained: Trained, shallow: Run) -> None:
    tags = shallow.data.tags
    assert shallow.info.status == "FINISHED"
    assert (tags["variant"], tags["seed"]) == ("shallow", "0")
    assert tags["git_commit"]
    assert {len(tags[key]) for key in DIGESTS} == {64}
    facts = read_facts(trained.project / "data/prepared/split")
    assert (tags["data_digest"], tags["split_digest"]) == (facts["data_digest"], facts["split_digest"])
    assert tags["model_digest"] == file_digest(trained.project / "models/shallow-0/model.keras")


def test_metrics_of_every_epoch_are_logged(trained: Trained, shallow: Run) -> None:
    history = history_of(trained)
    assert list(history.index) == [1, 2]
    assert set(history) == SCORES
    for metric in SCORES:
        logged = trained.client.get_metric_history(shallow.info.run_id, metric)
        assert [point.step for point in logged] == list(range(EPOCHS))
        assert [point.value for point in logged] == pytest.approx(list(history[metric]))


def test_figures_of_the_kept_weights_are_logged(trained: Trained, shallow: Run) -> None:
    metrics, history = shallow.data.metrics, history_of(trained)
    assert metrics["stopped_epoch"] == EPOCHS
    assert metrics["best_epoch"] == history.val_loss.idxmin()
    assert metrics["best_val_accuracy"] == pytest.approx(history.val_accuracy.max())
    assert metrics["parameters"] == 66_170
    assert metrics["wall_seconds"] > 0
    assert metrics["cpu_seconds"] > 0


def test_kept_accuracy_is_that_of_the_models_file(trained: Trained, shallow: Run) -> None:
    model = model_file.load(trained.project / "models/shallow-0/model.keras")
    validation = read_arrays(trained.project / "data/prepared/validation")
    _, accuracy = model_file.score(model, validation["images"], validation["labels"])
    assert shallow.data.metrics["kept_val_accuracy"] == pytest.approx(accuracy)


def test_params_are_those_of_the_variant_and_of_fit(shallow: Run) -> None:
    params = shallow.data.params
    assert {key: value for key, value in params.items() if key.startswith("variant.")} == {
        "variant.network": "shallow",
        "variant.optimizer.name": "adam",
        "variant.optimizer.learning_rate": "0.001",
        "variant.batch_size": "32",
        "variant.epochs": "2",
        "variant.label_smoothing": "0.0",
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


def test_logged_model_is_signed_for_pixels_and_has_an_example(trained: Trained, shallow: Run) -> None:
    info = LoggedModel.load(str(logged_model(trained, shallow)))
    [pixels], [probabilities] = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (pixels.type, pixels.shape) == (np.dtype("uint8"), (-1, 32, 32, 3))
    assert (probabilities.type, probabilities.shape) == (np.dtype("float32"), (-1, 10))
    assert info.saved_input_example_info is not None


def test_logged_model_gives_the_probabilities_of_the_models_file(trained: Trained, shallow: Run) -> None:
    images = np.array(read_arrays(trained.project / "data/prepared/validation")["images"][:5])
    logged = mlflow.pyfunc.load_model(str(logged_model(trained, shallow)))
    kept = model_file.load(trained.project / "models/shallow-0/model.keras")
    assert np.allclose(logged.predict(images), model_file.probabilities(kept, images), atol=1e-6)


def test_the_models_summary_is_an_artifact(shallow: Run) -> None:
    folder = Path(shallow.info.artifact_uri.removeprefix("file://"))
    assert "66,170" in (folder / "model_summary.txt").read_text()


def test_training_again_gives_the_same_files(trained: Trained) -> None:
    assert set(trained.first) == {"history.csv", "model.keras", "training.json"}
    assert trained.first == trained.second


def test_no_file_names_its_run(trained: Trained) -> None:
    for one in trained.runs("shallow-0"):
        assert not any(one.info.run_id.encode() in content for content in trained.second.values())


def test_record_holds_tags_params_and_metrics_of_the_run(trained: Trained, shallow: Run) -> None:
    record = record_of(trained, "shallow-0")
    assert record["tags"].items() <= shallow.data.tags.items()
    assert record["metrics"].items() <= shallow.data.metrics.items()
    logged = {f"variant.{key}": str(value) for key, value in record["params"].items()}
    assert logged.items() <= shallow.data.params.items()


def test_finetuned_variant_starts_from_the_others_weights(trained: Trained) -> None:
    base, tuned = (
        model_file.load(trained.project / "models" / name / "model.keras").get_weights()
        for name in ("shallow-0", "shallow_subset-0")
    )
    for start, end in zip(base, tuned, strict=True):
        assert np.allclose(start, end, atol=1e-5)
    record = record_of(trained, "shallow_subset-0")
    assert record["tags"]["variant"] == "shallow_subset"
    assert record["params"]["training_images"] == 300


def test_speedrun_is_scored_by_one_view_and_predicted_with_all(trained: Trained) -> None:
    model = model_file.load(trained.project / "models/speedrun-0/model.keras")
    predictions = read_arrays(trained.project / "predictions/speedrun-0")
    assert set(predictions) == {"validation", "test", "validation_mirror_shift", "test_mirror_shift"}
    validation = read_arrays(trained.project / "data/prepared/validation")
    for name, views in (("", None), ("_mirror_shift", "mirror_shift")):
        expected = model_file.probabilities(model, validation["images"], views)
        assert np.allclose(predictions[f"validation{name}"], expected, atol=1e-6)
    accuracy = (predictions["validation"].argmax(axis=1) == validation["labels"]).mean()
    assert record_of(trained, "speedrun-0")["metrics"]["kept_val_accuracy"] == pytest.approx(accuracy)


def test_the_last_line_reports_a_trained_model_even_without_a_right_answer(tmp_path: Path) -> None:
    metrics = {"kept_val_accuracy": 0.0, "parameters": 1}
    record = {"tags": {"status": "trained"}, "params": {}, "metrics": metrics}
    write_json(tmp_path / "training.json", record)
    assert Model("shallow", 0, ahead=tmp_path).outcome() == "validation accuracy 0.0000"


def test_diverged_training_is_a_result_with_its_reason(trained: Trained) -> None:
    record = record_of(trained, "runaway-0")
    [diverged] = trained.runs("runaway-0")
    assert diverged.info.status == "FINISHED"
    for tags in (record["tags"], diverged.data.tags):
        assert (tags["status"], tags["reason"]) == ("diverged", "its loss is nan in epoch 1")
    assert record["metrics"] == {"stopped_epoch": 1, "parameters": 66_170}
    assert diverged.outputs is None or not diverged.outputs.model_outputs


def test_outer_run_becomes_the_parent_and_is_not_written_into(trained: Trained) -> None:
    alone, inner = trained.runs("shallow-0")
    assert "mlflow.parentRunId" not in alone.data.tags
    assert inner.data.tags["mlflow.parentRunId"] == trained.parent
    outer = trained.client.get_run(trained.parent)
    assert (outer.info.status, outer.info.experiment_id) == ("RUNNING", "0")
    assert (outer.data.metrics, outer.data.params) == ({}, {})
    assert "variant" not in outer.data.tags


@pytest.fixture
def refusal(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A call that gives the line with which training refuses, in a copy of the prepared project."""
    project = tmp_path / "project"
    shutil.copytree(prepared, project)
    monkeypatch.chdir(project)
    monkeypatch.setattr(body, "make_deterministic", seed_only)

    def refuse(name: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train", name, "0"])
        with pytest.raises(SystemExit) as ended:
            train.main()
        files = sorted(path.name for path in project.iterdir() if path.name != ".pipeline")
        assert files == ["data", "params.yaml", "recipes"]
        line = ended.value.code
        assert isinstance(line, str)  # Python prints it and exits with status 1
        assert "\n" not in line
        return line

    return refuse


def test_finetuning_without_the_others_model_is_refused(refusal: Callable[[str], str]) -> None:
    assert refusal("shallow_subset") == "error: models/shallow-0/model.keras: No such file or directory"


def test_unknown_variant_is_refused(refusal: Callable[[str], str]) -> None:
    assert refusal("resnet") == (
        "error: recipes/resnet.json: no such recipe; there are: runaway, shallow, shallow_subset, speedrun"
    )


def test_a_recipe_of_another_machine_is_refused(refusal: Callable[[str], str]) -> None:
    path = Path("recipes/shallow.json")
    write_json(path, json.loads(path.read_text()) | {"device": "gpu"})
    assert refusal("shallow").startswith("error: recipes/shallow.json: device is gpu, but here it is cpu: ")


def test_missing_data_are_refused(refusal: Callable[[str], str]) -> None:
    shutil.rmtree("data/prepared/split")
    assert refusal("shallow").startswith("error: data/prepared/split/manifest.json: cannot be read: ")
