"""Wraps a Keras model for serving: signature, requirements, digests; checks what the served model answers.

A change here, in `served_model.py` or in `images.py` retrains nothing: `promote` registers the same model
again, served in the new way.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema

from pipeline.data.images import encode_base64
from pipeline.shared.arrays import digest_of, file_digest
from pipeline.shared.errors import PipelineError, in_a_line, masked

SERVED_MODEL = Path(__file__).with_name("served_model.py")
IMAGES = Path(__file__).parents[1] / "data/images.py"
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow")
TOLERANCE = 1e-3  # of a probability; another processor rounds in another way
ANSWER = """
import json, sys, mlflow, pandas
answers = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame({"image": json.load(sys.stdin)}))
print(json.dumps([list(answer["probabilities"].values()) for answer in answers]))
"""


def described(model: Path, classes: list[str], example: np.ndarray, batch_limit: int) -> dict[str, Any]:
    """The arguments of `mlflow.pyfunc.log_model` for a `.keras` file, with an image, uint8 (size, size, 3).

    They include the digests of everything that answers depend on, which the served model checks on loading.
    """
    digests = {"model": file_digest(model), "images": file_digest(IMAGES), "code": file_digest(SERVED_MODEL)}
    return {
        "python_model": str(SERVED_MODEL),
        "artifacts": {"model": str(model), "images": str(IMAGES)},
        "model_config": {
            "classes": classes,
            "batch_limit": batch_limit,
            "image_size": len(example),
            "sha256": digests | {"classes": digest_of(classes)},
        },
        "signature": signature(),
        "input_example": example_request(example),
        "pip_requirements": requirements(),
    }


def digest(batch_limit: int) -> str:
    """One digest for all that decides how a model is served."""
    contents = [file_digest(path) for path in (Path(__file__), SERVED_MODEL, IMAGES)]
    return digest_of([*contents, requirements(), batch_limit])


def files(model_digest: str) -> dict[str, str]:
    """The files of a registered version that decide its answers, with their digests."""
    own = {"artifacts/images.py": file_digest(IMAGES), SERVED_MODEL.name: file_digest(SERVED_MODEL)}
    return own | {"artifacts/model.keras": model_digest}


def check_answers(uri: str, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise PipelineError if a served model cannot be loaded, or if a probability is not the expected one."""
    worst = np.abs(answers_of_new_process(uri, images) - probabilities).max()
    if not worst <= TOLERANCE:  # nor NaN
        raise PipelineError(
            f"{uri}: does not answer as its predictions say, so it is not promoted: probabilities differ by "
            f"up to {worst:.3g}; at most {TOLERANCE} is allowed"
        )


def answers_of_new_process(uri: str, images: np.ndarray) -> np.ndarray:
    """A served model's probabilities (n, classes) of uint8 images, loaded as a server loads it.

    The process has none of the pipeline's modules, and so none of their layers. Raises PipelineError.
    """
    rows = json.dumps([encode_base64(image) for image in images])
    command = [sys.executable, "-I", "-c", ANSWER, uri]
    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    done = subprocess.run(command, input=rows, env=environment, capture_output=True, text=True)
    if done.returncode:
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", done.stderr, re.MULTILINE)
        reason = errors[-1] if errors else done.stderr[-300:] or f"status {done.returncode}"
        reason = masked(in_a_line(reason))[:300]
        raise PipelineError(f"{uri}: cannot be served, so it is not promoted: {reason}")
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def requirements() -> list[str]:
    """The packages that the served model needs, at the installed versions."""
    return [f"{package}=={version(package)}" for package in PACKAGES]


def signature() -> ModelSignature:
    """The served model's inputs and outputs, a row for each image.

    `pixels` is of any type, since the served model checks it: MLflow takes 19 ms an image to do so (two
    cores of an AMD EPYC), twenty times what the network takes, and its refusals repeat the request.
    """
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "image", required=False),
                ColSpec(AnyType(), "pixels", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "confidence"),
                ColSpec(Map(DataType.double), "probabilities"),
            ]
        ),
        params=ParamSchema([ParamSpec("top_k", DataType.long, default=None)]),
    )


def example_request(image: np.ndarray) -> pd.DataFrame:
    """One image, uint8 (size, size, 3), as the served model takes it: a file in base64."""
    return pd.DataFrame({"image": [encode_base64(image)]})
