"""Wraps a Keras model for serving: signature, requirements, digests.

A change here, in `served_model.py` or in `image_decoding.py` retrains nothing: `promote` registers the same
model again, served in the new way.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema

from pipeline.shared.image_decoding import encode_base64
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.mlflow_registry import MODEL

PACKAGE = Path(__file__).parents[2]
SERVED_MODEL = Path(__file__).with_name("served_model.py")
TRAINING_IDS = "training_ids.npy"  # in a registered version: which images it was trained on
MODULES = {  # of the pipeline, which the served model carries
    "images": PACKAGE / "shared/image_decoding.py",
    "views": PACKAGE / "core/test_time_views.py",
}
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow")


def described(
    model: Path,
    classes: list[str],
    example: np.ndarray,
    batch_limit: int,
    views: str | None = None,
    fit: str = "crop",
) -> dict[str, Any]:
    """The arguments of `mlflow.pyfunc.log_model` for a `.keras` file, with an image, uint8 (size, size, 3).

    Answers are means over the test-time `views`, and image files become squares by `fit`. The arguments
    include the digests of everything that answers depend on, which the served model checks on loading.
    """
    artifacts = {"model": model} | MODULES
    digests = {part: file_digest(path) for part, path in (artifacts | {"code": SERVED_MODEL}).items()}
    return {
        "python_model": str(SERVED_MODEL),
        "artifacts": {part: str(path) for part, path in artifacts.items()},
        "model_config": {
            "classes": classes,
            "batch_limit": batch_limit,
            "image_size": len(example),
            "fit": fit,
            "views": views,
            "sha256": digests | {"classes": digest_of(classes)},
        },
        "signature": signature(),
        "input_example": example_request(example),
        "pip_requirements": requirements(),
    }


def digest(batch_limit: int, views: str | None, fit: str) -> str:
    """One digest for all that decides how a model is served."""
    contents = [file_digest(path) for path in (Path(__file__), SERVED_MODEL, *MODULES.values())]
    return digest_of([*contents, requirements(), batch_limit, views, fit])


def files(model_digest: str) -> dict[str, str]:
    """The files of a registered version that decide its answers, with their digests."""
    modules = {f"artifacts/{path.name}": file_digest(path) for path in MODULES.values()}
    return modules | {SERVED_MODEL.name: file_digest(SERVED_MODEL), MODEL: model_digest}


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
