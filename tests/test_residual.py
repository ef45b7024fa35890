"""A residual network goes from params.yaml to a served champion, killed and resumed on the way."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from pipeline.champion.serving import example_request
from pipeline.shared.arrays import file_digest, read_arrays
from tests.jobs import Job, copied, kill, make, small_params, trained_epochs, wait_for

pytestmark = pytest.mark.timeout(900)

RESIDUAL = '''

def residual(inputs: keras.KerasTensor, width: int = 8) -> keras.KerasTensor:
    """A nested block with normalization beside a skip connection."""
    stem = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(RandomShift(2)(inputs))
    block = [layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    branch = keras.Sequential([keras.Input((16, 16, width)), *block], name="block")(stem)
    return layers.Flatten()(layers.MaxPooling2D(4)(stem + branch))
'''
IMPORT = "from pipeline.training.layers import RandomShift\n"


def lay_out(folder: Path) -> Job:
    """A job with the network and its block, fetched and prepared."""
    params = small_params(
        batchnorm={
            "network": {"name": "residual", "width": 12},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
            "label_smoothing": 0.1,
            "early_stopping": None,
            "epochs": 12,
        }
    )
    job = make(folder, params)
    networks = folder / "pipeline/design/networks.py"
    source = networks.read_text().replace("\nlayers = ", f"{IMPORT}\nlayers = ", 1)
    networks.write_text(source + RESIDUAL)
    job.run("dvc", "repro", "recipes")
    return job


def test_a_residual_network_is_killed_resumed_promoted_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lay_out(tmp_path / "job")
    undisturbed = copied(job, tmp_path / "undisturbed")
    with job.start("dvc", "repro", "train@batchnorm-0") as dvc:
        wait_for(lambda: trained_epochs(job) >= 3)
        kill(job, dvc, "group")
    assert "batchnorm: resuming after epoch " in job.run("dvc", "repro", "promote")
    undisturbed.run("dvc", "repro", "--single-item", "train@batchnorm-0")
    model = Path("models/batchnorm-0/model.keras")
    assert file_digest(job.folder / model) == file_digest(undisturbed.folder / model)

    [run] = [run for run in job.runs() if run.info.run_name == "batchnorm-0"]
    for measure in ("loss", "accuracy"):
        last = run.data.metrics[f"val_{measure}"]
        assert run.data.metrics[f"validation_{measure}"] == last  # autologging's name

    monkeypatch.chdir(job.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", job.store)
    champion = MlflowClient().get_model_version_by_alias("digits", "champion")
    assert champion.tags["variant"] == "batchnorm"
    served = mlflow.pyfunc.load_model("models:/digits@champion")
    image = np.array(read_arrays(Path("data/prepared/test"))["images"][0])
    [answer] = served.predict(example_request(image))
    expected = read_arrays(Path("predictions/batchnorm-0"))["test"][0]
    assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
