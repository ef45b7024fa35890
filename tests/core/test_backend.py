"""Neither ~/.keras/keras.json nor the environment changes a training, a prediction or a served answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.core import keras_file, prediction
from pipeline.stages.promote import packaging
from pipeline.support.digests import file_digest
from tests import projects
from tests.keras_models import network_model
from tests.projects import Project, small_params

IMAGES = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 200, np.uint8)])
ANSWER = """
import json, mlflow, pandas, sys
pixels = pandas.DataFrame({"pixels": json.loads(sys.argv[2])})
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(pixels)))
"""
SETTINGS = {"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "jax"}
VARIABLES = {
    "KERAS_BACKEND": "torch",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "ANY",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "7",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The variables of a home folder in which Keras has other settings."""
    folder = tmp_path / "home/.keras"
    folder.mkdir(parents=True)
    (folder / "keras.json").write_text(json.dumps(SETTINGS))
    return {"HOME": str(folder.parent), "KERAS_HOME": str(folder)}


def written(job: Project, **environment: str) -> dict[str, str]:
    """The digests of what a training and a prediction write, in processes with this environment."""
    for stage in ("train", "predict"):
        job.run(sys.executable, "-m", "pipeline", stage, "shallow", "0", check=True, **environment)
    files = [path for part in ("models", "predictions") for path in (job.folder / part).glob("*/*")]
    return {str(path.relative_to(job.folder)): file_digest(path) for path in files}


def test_no_byte_of_a_training_or_a_prediction_changes(tmp_path: Path, home: dict[str, str]) -> None:
    job = projects.prepared(tmp_path / "job", small_params(shallow={"epochs": 2}))
    other = projects.copied(job, tmp_path / "other", **job.more)
    assert len(expected := written(job)) == 7
    assert written(other, **VARIABLES, **home) == expected


def test_a_served_model_answers_as_its_predictions(tmp_path: Path, home: dict[str, str]) -> None:
    model = network_model("translate", 3)
    keras_file.save(model, tmp_path / "model.keras")
    described = packaging.described(
        tmp_path / "model.keras", ["a", "b", "c"], IMAGES[0], packaging.Serving(2)
    )
    mlflow.pyfunc.save_model(path=tmp_path / "served", **described)
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"} | home
    command = [sys.executable, "-c", ANSWER, str(tmp_path / "served"), json.dumps(IMAGES.tolist())]
    answers = json.loads(subprocess.check_output(command, env=environment, cwd=tmp_path).splitlines()[-1])
    found = [list(answer["probabilities"].values()) for answer in answers]
    assert np.allclose(found, prediction.probabilities(model, IMAGES), atol=1e-5)
