"""Where a network looks for a class: Grad-CAM (Selvaraju et al., 2017) of a served Keras network."""

from dataclasses import dataclass
from functools import cache

import mlflow
import numpy as np
from PIL import Image

from pipeline.commands import loaded_model
from pipeline.core.backend import keras, tf

SMALLEST = 4  # pixels across: smaller maps do not tell places apart


@dataclass(frozen=True)
class GradCam:
    """A network in three parts: up to its last feature maps, up to its last layer, and that layer."""

    front: keras.Model
    back: keras.Model
    last: keras.layers.Dense

    def heat(self, pixels: np.ndarray, label: int) -> np.ndarray:
        """How much each place of uint8 (size, size, 3) speaks for a class: float32 (size, size), 0 to 1."""
        maps = self.front(tf.constant(pixels[None]))
        with tf.GradientTape() as tape:
            tape.watch(maps)
            features = tf.cast(self.back(maps), tf.float32)
            logit = tf.reduce_sum(features * self.last.kernel[:, label])
        weights = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2), keepdims=True)
        found = tf.nn.relu(tf.reduce_sum(weights * maps, axis=3))[0].numpy().astype(np.float32)
        scaled = Image.fromarray(found / max(float(found.max()), 1e-9))
        return np.asarray(scaled.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))


@cache
def load(uri: str) -> GradCam | None:
    """That of a served model, once; None of other models, and without feature maps.

    The maps of a network within the network, as of keras.applications, cannot be reached.
    """
    artifacts = loaded_model.load_once(uri).model.metadata.flavors["python_function"].get("artifacts") or {}
    if "model" not in artifacts:
        return None
    path = mlflow.artifacts.download_artifacts(f"{uri}/{artifacts['model']['path']}")
    loaded = keras.saving.load_model(path, compile=False)
    network = keras.models.clone_model(loaded)  # Keras connects the layers of a loaded list many times
    network.set_weights(loaded.get_weights())
    inputs = [layer.input for layer in network.layers if isinstance(layer.input, keras.KerasTensor)]
    maps = [one for one in inputs if len(one.shape) == 4 and one.shape[1] >= SMALLEST and one.shape[3] > 3]
    if not maps:
        return None
    last = network.layers[-1]
    return GradCam(keras.Model(network.inputs[0], maps[-1]), keras.Model(maps[-1], last.input), last)
