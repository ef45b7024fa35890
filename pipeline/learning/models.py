"""Building a variant's Keras model, and keeping it in a file whose bytes depend on its content alone."""

import contextlib
import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.errors import PipelineError, in_a_line
from pipeline.learning import networks
from pipeline.learning.backend import keras, tf

IMAGE_SHAPE = (32, 32, 3)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip archive can hold


def build(network: str, classes: int, name: str) -> keras.Sequential:
    """A new model from uint8 images (n, 32, 32, 3) to float32 probabilities (n, classes).

    Scaling by 1/255 is its first layer, so that whoever uses the model passes plain pixels.
    """
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            *getattr(networks, network)(),
            keras.layers.Dense(classes, activation="softmax", name="probabilities"),
        ],
        name=name,
    )


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file in one canonical form: the same model gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with TemporaryDirectory() as folder:
        dated = Path(folder) / "model.keras"
        model.save(dated)
        with zipfile.ZipFile(dated) as source, zipfile.ZipFile(partial, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name.endswith(".json"):
                    content = json.dumps(_canonical(json.loads(content), {}), sort_keys=True).encode()
                target.writestr(zipfile.ZipInfo(name, EPOCH), content)
    partial.replace(path)


def _canonical(node: Any, seen: dict[int, int]) -> Any:
    """A model's description without the date of saving, and with its shared objects, which Keras names
    by their addresses in memory, numbered as they come."""
    if isinstance(node, list):
        return [_canonical(item, seen) for item in node]
    if not isinstance(node, dict):
        return node
    fixed = {key: _canonical(value, seen) for key, value in node.items()}
    if "date_saved" in fixed:
        fixed["date_saved"] = "1980-01-01@00:00:00"
    if "shared_object_id" in fixed:
        fixed["shared_object_id"] = seen.setdefault(fixed["shared_object_id"], len(seen))
    return fixed


def load(path: Path) -> keras.Sequential:
    """Read a model from a `.keras` file; OSError or PipelineError, naming the file, where that fails."""
    path.open("rb").close()  # of a file that may not be read, Keras says that there is none
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # what Keras raises depends on where the file is damaged
        reason = in_a_line(error)
        raise PipelineError(f"{path}: not a readable Keras model: {reason}") from error


def probabilities(model: keras.Model, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Class probabilities, float32 (n, classes), of uint8 images (n, 32, 32, 3).

    Calls the model batch by batch: `Model.predict` waits for tf.data's autotuning on top of the work.
    """
    if not len(images):
        return np.empty((0, *model.output_shape[1:]), np.float32)
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([forward(tf.constant(batch)).numpy() for batch in batches])


def score(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy on uint8 images (n, 32, 32, 3) with labels (n,)."""
    predicted = probabilities(model, images)
    loss = keras.losses.sparse_categorical_crossentropy(labels, predicted)
    return float(np.mean(loss)), float((predicted.argmax(axis=1) == labels).mean())


def log(model: keras.Model, example: np.ndarray) -> None:
    """Log a model to the active MLflow run, signed for uint8 images, with an example (1, 32, 32, 3).

    With the TensorFlow flavour: the Keras one cannot store an example (mlflow 3.17).
    """
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *IMAGE_SHAPE))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *model.output_shape[1:]))]),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # MLflow tries the example, with a progress bar
        mlflow.tensorflow.log_model(
            model,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={version(name)}" for name in ("tensorflow", "keras")],
        )
