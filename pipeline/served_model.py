"""The model that is served: pixels in, a class's name and all probabilities out.

MLflow stores this file with the model and runs it to load the model ("models from code"), so it stands
alone: it imports nothing of the pipeline, and nothing is unpickled.
"""

from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import tensorflow as tf
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

IMAGE_SHAPE = (32, 32, 3)


class Classifier(PythonModel):
    """Names the class of each row's `pixels`, 32x32x3 integers from 0 to 255."""

    def load_context(self, context: Any) -> None:
        """Read the Keras model and the classes' names, and trace the forward pass once."""
        model = keras.saving.load_model(context.artifacts["model"], compile=False)
        self.classes: list[str] = context.model_config["classes"]
        signature = [tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)]
        self.forward = tf.function(lambda images: model(images, training=False), input_signature=signature)
        self.forward(tf.zeros((1, *IMAGE_SHAPE), tf.uint8))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer a row: `label`, `confidence` and `probabilities` by class name."""
        del context, params
        if model_input.empty:  # TensorFlow's convolutions fail on a batch of none
            return []
        images = np.stack([_pixels(row, value) for row, value in enumerate(model_input["pixels"])])
        return [
            {
                "label": self.classes[int(row.argmax())],
                "confidence": float(row.max()),
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for row in self.forward(tf.constant(images)).numpy()
        ]


def _pixels(row: int, value: Any) -> np.ndarray:
    """uint8 (32, 32, 3) of nested lists or an array; MlflowException, answered as 400, of anything else."""
    try:
        pixels = np.array(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError:  # rows of different lengths
        pixels = np.empty(0)
    if pixels.shape != IMAGE_SHAPE or pixels.dtype.kind not in "iu":
        received = f"{pixels.dtype} {pixels.shape}" if pixels.size else "rows of different lengths"
        raise MlflowException(
            f"row {row}: pixels: 32 x 32 x 3 integers are allowed; received {received}",
            error_code=INVALID_PARAMETER_VALUE,
        )
    if pixels.min() < 0 or pixels.max() > 255:
        raise MlflowException(
            f"row {row}: pixels: 0 to 255 are allowed; received {pixels.min()} to {pixels.max()}",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return pixels.astype(np.uint8)


mlflow.models.set_model(Classifier())
