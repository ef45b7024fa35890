"""Saves and loads Keras models in files whose bytes depend only on the model, and predicts with them."""

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.learning.backend import keras, tf
from pipeline.shared.errors import PipelineError, in_a_line

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip archive can hold


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file in a canonical form: the same model gives the same bytes."""
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
    """A model's configuration without the date of saving, and with shared objects numbered in their order:
    Keras identifies them by their addresses in memory."""
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


def load(path: Path) -> keras.Model:
    """Read a model from a `.keras` file. Raises OSError or PipelineError, naming the file."""
    path.open("rb").close()  # Keras reports a file without read permission as missing
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises almost anything
        reason = in_a_line(error)
        raise PipelineError(f"{path}: not a readable Keras model: {reason}") from error


def probabilities(model: keras.Model, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Class probabilities, float32 (n, classes), of uint8 images (n, height, width, channels).

    Calls the model on each batch, since `Model.predict` also waits for tf.data's autotuning.
    """
    if not len(images):
        return np.empty((0, *model.output_shape[1:]), np.float32)
    forward = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(
        tf.TensorSpec((None, *images.shape[1:]), tf.uint8)
    )
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([forward(tf.constant(batch)).numpy() for batch in batches])


def score(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy, on uint8 images (n, height, width, channels)."""
    predicted = probabilities(model, images)
    loss = keras.losses.sparse_categorical_crossentropy(labels, predicted)
    return float(np.mean(loss)), float((predicted.argmax(axis=1) == labels).mean())


def with_views(model: keras.Model, views: str) -> keras.Model:
    """The model with `mirror`: the mean over an image and its mirror image; with `mirror_shift`: half that,
    half the mean over both, shifted by a pixel up and left, or down and right, filled by reflection.

    It takes uint8 images (n, height, width, channels), gives float32 probabilities (n, classes), and is plain
    Keras, so it is saved and served like `model`. As in airbench94 (Jordan, 94% on CIFAR-10 in 3.29 Seconds,
    2024, section 3.5), but with probabilities in place of logits.
    """
    inputs = keras.Input(model.input_shape[1:], dtype="uint8")
    answers = [_mirrored(model, inputs)]
    if views == "mirror_shift":
        padded = keras.ops.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
        corners = [keras.layers.Cropping2D(((top, 2 - top), (top, 2 - top))) for top in (0, 2)]
        shifted = [_mirrored(model, corner(padded)) for corner in corners]
        answers.append(keras.layers.Average()(shifted))
    answer = keras.layers.Average()(answers) if len(answers) > 1 else answers[0]
    return keras.Model(inputs, answer, name=f"{model.name}_{views}")


def _mirrored(model: keras.Model, images: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Average()([model(images), model(keras.ops.flip(images, axis=2))])
