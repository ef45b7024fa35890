"""The training stage as a user runs it: its files, its MLflow run, and its refusals."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelStatus, Run
from mlflow.models import Model as LoggedModel

from pipeline.core import keras_file, prediction
from pipeline.core.arrays import read_arrays, read_facts, write_json
from pipeline.core.backend import keras
from pipeline.support import mlflow_training
from pipeline.support.digests import file_digest
from tests import projects
from tests.called import call
from tests.projects import Project, small_params

EPOCHS = 2
DIGESTS = ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest")
SCORES = {"loss", "accuracy", "val_loss", "val_accuracy"}


def tiny_params() -> dict[str, Any]:
    """On digits: two variants, one of which diverges, a fine-tuned one, a small speedrun with all options."""
    stopping = {"monitor": "val_loss", "patience": 5, "restore_best_weights": True}
    params = small_params(shallow={"epochs": EPOCHS, "early_stopping": stopping}, speedrun={"epochs": EPOCHS})
    shallow, speedrun = params["variants"]["shallow"], params["variants"]["speedrun"]
    speedrun |= {"network": {"name": "speedrun", "widths": [8, 8, 8]}, "precision": "float32"}
    speedrun |= {"batch_size": 128, "whitening": {"images": 100, "epochs": 1}}
    speedrun |= {"augmentation": [{"name": "random_rotation", "factor": 0.02}], "class_weight": "balanced"}
    params["variants"]["runaway"] = shallow | {"optimizer": {"name": "sgd", "learning_rate": 1e30}}
    frozen = {"optimizer": {"name": "sgd", "learning_rate": 1e-9}, "training_images": 300}
    params["finetune"] = {"init_from": "shallow", "variants": {"shallow_subset": shallow | frozen}}
    return params


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing is trained yet."""
    return projects.prepared(tmp_path_factory.mktemp("prepared") / "project", tiny_params()).folder


@dataclass(frozen=True)
class TrainedProject(Project):
    """A project with shallow, trained and fine-tuned, a training that runs away, and a speedrun."""

    output: str = ""

    def named(self, name: str) -> Run:
        """The run of that name."""
        [found] = [run for run in self.runs() if run.info.run_name == name]
        return found

    def record(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "models" / name / "training.json").read_text())

    def load(self, name: str) -> keras.Model:
        return keras_file.load(self.folder / "models" / name / "model.keras")

    def validation(self) -> dict[str, np.ndarray]:
        return read_arrays(self.folder / "data/prepared/validation")


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedProject:
    project = shutil.copytree(prepared, tmp_path_factory.mktemp("trained") / "project")
    printed = call(project, "train", "shallow", "0").out
    assert call(project, "train", "runaway", "0").error is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_training, "log_model", lambda *_: None)  # it takes seconds
        for name in ("shallow_subset", "speedrun"):
            assert call(project, "train", name, "0").error is None
    assert call(project, "predict", "speedrun", "0").error is None
    return TrainedProject(project, output=printed)


@pytest.fixture
def shallow(trained: TrainedProject) -> Run:
    return trained.named("shallow-0")


def test_run_is_finished_and_tagged_with_what_made_it(trained: TrainedProject, shallow: Run) -> None:
    tags = shallow.data.tags
    assert trained.output.splitlines()[-1].startswith("shallow-0: validation accuracy 0.")
    assert shallow.info.status == "FINISHED"
    assert (tags["variant"], tags["seed"]) == ("shallow", "0")
    assert tags["git_commit"]
    assert {len(tags[key]) for key in DIGESTS} == {64}
    facts = read_facts(trained.folder / "data/prepared/split")
    assert (tags["data_digest"], tags["split_digest"]) == (facts["data_digest"], facts["split_digest"])
    assert tags["model_digest"] == file_digest(trained.folder / "models/shallow-0/model.keras")


def test_metrics_of_every_epoch_and_of_the_kept_weights_are_logged(
    trained: TrainedProject, shallow: Run
) -> None:
    history = pd.read_csv(trained.folder / "models/shallow-0/history.csv", index_col="epoch")
    assert list(history.index) == [1, 2]
    assert set(history) == SCORES
    for metric in SCORES:
        logged = trained.client.get_metric_history(shallow.info.run_id, metric)
        assert [point.step for point in logged] == list(range(EPOCHS))
        assert [point.value for point in logged] == pytest.approx(list(history[metric]))
    metrics, validation = shallow.data.metrics, trained.validation()
    assert metrics["stopped_epoch"] == EPOCHS
    assert metrics["best_epoch"] == history.val_loss.idxmin()
    assert metrics["parameters"] == 66_170
    assert min(metrics["wall_seconds"], metrics["cpu_seconds"]) > 0
    accuracy = prediction.accuracy(trained.load("shallow-0"), validation["images"], validation["labels"])
    assert metrics["validation/accuracy"] == pytest.approx(accuracy)
    named_twice = {name for name in metrics if name.startswith("validation_")}
    assert not named_twice


def test_data_are_logged_as_inputs_with_their_digest(shallow: Run) -> None:
    assert shallow.inputs is not None
    inputs = {entry.tags[0].value: entry.dataset for entry in shallow.inputs.dataset_inputs}
    expected = {context: f"digits-{context}" for context in ("training", "validation")}
    assert {context: dataset.name for context, dataset in inputs.items()} == expected
    assert len({dataset.digest for dataset in inputs.values()}) == 2


def test_logged_model_is_signed_for_pixels_has_an_example_and_answers_as_the_models_file(
    trained: TrainedProject, shallow: Run
) -> None:
    assert shallow.outputs is not None
    [output] = shallow.outputs.model_outputs
    logged = trained.client.get_logged_model(output.model_id)
    assert logged.status == LoggedModelStatus.READY
    folder = logged.artifact_location.removeprefix("file://")
    info = LoggedModel.load(folder)
    [pixels], [probabilities] = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (pixels.type, pixels.shape) == (np.dtype("uint8"), (-1, 32, 32, 3))
    assert (probabilities.type, probabilities.shape) == (np.dtype("float32"), (-1, 10))
    assert info.saved_input_example_info is not None
    images = np.array(trained.validation()["images"][:5])
    expected = prediction.probabilities(trained.load("shallow-0"), images)
    assert np.allclose(mlflow.pyfunc.load_model(folder).predict(images), expected, atol=1e-6)
    summary = Path(shallow.info.artifact_uri.removeprefix("file://")) / "model_summary.txt"
    assert "66,170" in summary.read_text()


def test_record_holds_tags_params_and_metrics_of_the_run(trained: TrainedProject, shallow: Run) -> None:
    record = trained.record("shallow-0")
    assert record["tags"].items() <= shallow.data.tags.items()
    assert record["metrics"].items() <= shallow.data.metrics.items()
    named = {"variant": "shallow", "seed": "0"}
    assert shallow.data.params == named | {key: str(value) for key, value in record["params"].items()}
    assert shallow.data.params["early_stopping.restore_best_weights"] == "True"
    assert "2 of at most 2 epochs, 66,170 parameters" in shallow.data.tags["mlflow.note.content"]


def test_finetuned_variant_starts_from_the_others_weights(trained: TrainedProject) -> None:
    base, tuned = (trained.load(name).get_weights() for name in ("shallow-0", "shallow_subset-0"))
    for start, end in zip(base, tuned, strict=True):
        assert np.allclose(start, end, atol=1e-5)
    record = trained.record("shallow_subset-0")
    assert record["tags"]["variant"] == "shallow_subset"
    assert record["params"]["training_images"] == 300


def test_speedrun_is_scored_by_one_view_and_predicted_with_all(trained: TrainedProject) -> None:
    model, validation = trained.load("speedrun-0"), trained.validation()
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {
        "keras"
    }  # none of our own
    predictions = read_arrays(trained.folder / "predictions/speedrun-0")
    mirrored = {"validation_mirror_shift", "test_mirror_shift"}
    assert set(predictions) == {"train", "validation", "test", *mirrored}
    images = read_arrays(trained.folder / "data/prepared/train")["images"]
    assert np.allclose(predictions["train"], prediction.probabilities(model, images[:2000]), atol=1e-6)
    for name, views in (("", None), ("_mirror_shift", "mirror_shift")):
        expected = prediction.probabilities(model, validation["images"], views)
        assert np.allclose(predictions[f"validation{name}"], expected, atol=1e-6)
    accuracy = (predictions["validation"].argmax(axis=1) == validation["labels"]).mean()
    assert trained.record("speedrun-0")["metrics"]["validation/accuracy"] == pytest.approx(accuracy)


def test_diverged_training_is_a_result_with_its_reason(trained: TrainedProject) -> None:
    record, diverged = trained.record("runaway-0"), trained.named("runaway-0")
    assert diverged.info.status == "FINISHED"
    for tags in (record["tags"], diverged.data.tags):
        assert (tags["status"], tags["reason"]) == ("diverged", "its loss is nan in epoch 1")
    assert record["metrics"] == {"stopped_epoch": 1, "parameters": 66_170}
    assert diverged.outputs is None or not diverged.outputs.model_outputs


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        ("shallow", "recipes/shallow/recipe.json: device is gpu, but here it is cpu: "),
        ("shallow_subset", "models/shallow-0/model.keras: No such file or directory"),
        (
            "resnet",
            "recipes/resnet/recipe.json: no such recipe; there are: runaway, shallow, shallow_subset, "
            "speedrun",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line_and_leaves_nothing(
    prepared: Path, tmp_path: Path, variant: str, line: str
) -> None:
    project = shutil.copytree(prepared, tmp_path / "project")
    recipe = project / "recipes/shallow/recipe.json"
    write_json(recipe, json.loads(recipe.read_text()) | {"device": "gpu"})
    assert call(project, "train", variant, "0").refusal.startswith(line)
    files = sorted(path.name for path in project.iterdir() if path.name != ".pipeline")
    assert files == ["data", "params.yaml", "recipes"]
