"""Predicts class probabilities with a Keras model."""

from collections.abc import Callable

import numpy as np

from pipeline.core.backend import keras, tf
from pipeline.core.test_time_views import average

BATCH = 500  # images that are predicted at once
PIXELS = BATCH * 32 * 32  # of larger images, as many as have so many pixels


def predictor(model: keras.Model, views: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """A function, traced once, from uint8 images (n, height, width, channels) to probabilities (n, classes).

    The probabilities are float32, with `views` their mean over these test-time views. It calls the model on
    each batch, since `Model.predict` also waits for tf.data's autotuning.
    """
    forward = tf.function(lambda batch: average(model, batch, views)).get_concrete_function(
        tf.TensorSpec(model.input_shape, tf.uint8)
    )

    def predict(images: np.ndarray) -> np.ndarray:
        size = batch_size(images)
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([forward(tf.constant(batch)).numpy() for batch in batches])

    return predict


def batch_size(images: np.ndarray) -> int:
    """How many of these images (n, height, width, channels) a network gets at once, for the memory."""
    _, height, width, _ = images.shape
    return max(1, min(BATCH, PIXELS // (height * width)))


def probabilities(model: keras.Model, images: np.ndarray, views: str | None = None) -> np.ndarray:
    """The class probabilities of images: see `predictor`."""
    return predictor(model, views)(images)


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy on uint8 images (n, height, width, channels)."""
    return float((probabilities(model, images).argmax(axis=1) == labels).mean())
