"""Wraps a Keras model for serving: signature, requirements, digests.

A change here, in `served_model.py` or in `image_decoding.py` retrains nothing: `promote` registers the same
model again, served in the new way.
"""

from dataclasses import asdict, dataclass
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
    "temperature": PACKAGE / "shared/temperature.py",
}
PACKAGES = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow")


@dataclass(frozen=True)
class Serving:
    """How a model is served."""

    batch_limit: int  # images in one request
    fit: str = "crop"  # how image files become squares
    views: str | None = None  # test-time views, over which answers are means
    temperature: float = 1.0  # by which they are scaled
    refuse_below: float | None = None  # the confidence that a label needs


def described(model: Path, classes: list[str], example: np.ndarray, serving: Serving) -> dict[str, Any]:
    """The arguments of `mlflow.pyfunc.log_model` for a `.keras` file, with an image, uint8 (size, size, 3).

    They include the digests of everything that answers depend on, which the served model checks on loading.
    """
    artifacts = {"model": model} | MODULES
    digests = {part: file_digest(path) for part, path in (artifacts | {"code": SERVED_MODEL}).items()}
    return {
        "python_model": str(SERVED_MODEL),
        "artifacts": {part: str(path) for part, path in artifacts.items()},
        "model_config": {
            "classes": classes,
            "image_size": len(example),
            "sha256": digests | {"classes": digest_of(classes)},
        }
        | asdict(serving),
        "signature": signature(),
        "input_example": example_request(example),
        "pip_requirements": requirements(),
    }


def digest(serving: Serving) -> str:
    """One digest for all that decides how a model is served."""
    contents = [file_digest(path) for path in (Path(__file__), SERVED_MODEL, *MODULES.values())]
    return digest_of([*contents, requirements(), asdict(serving)])


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
                ColSpec(DataType.string, "label", required=False),  # null if it is refused
                ColSpec(DataType.double, "confidence"),
                ColSpec(Map(DataType.double), "probabilities"),
            ]
        ),
        params=ParamSchema([ParamSpec("top_k", DataType.long, default=None)]),
    )


def example_request(image: np.ndarray) -> pd.DataFrame:
    """One image, uint8 (size, size, 3), as the served model takes it: a file in base64."""
    return pd.DataFrame({"image": [encode_base64(image)]})
