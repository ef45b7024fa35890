"""Faster versions of Keras layers for the training twin, with fewer passes over memory."""

import math
from collections.abc import Callable
from typing import Any

from pipeline.core.backend import keras, tf


def fused(layer: keras.Layer) -> type[keras.Layer]:
    """The fastest class that computes what `layer` does and takes its configuration; by default its own."""
    if type(layer) is keras.layers.BatchNormalization and _is_shifted_last_axis(layer):
        return BatchNormalization
    if type(layer) is keras.layers.Activation and layer.activation is keras.activations.gelu:
        return GELU
    return type(layer)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, with TensorFlow's fused kernel in training, for which Keras runs a dozen operations."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Features (n, height, width, channels), normalized; updates the moving averages in training."""
        if not (training and self.trainable) or len(inputs.shape) != 4 or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        scale = self.gamma if self.scale else tf.ones_like(self.beta)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
        )
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
        variance *= (count - 1) / count  # the kernel's is a sample's, Keras's the batch's
        for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + new * (1 - self.momentum))
        return normalized


class GELU(keras.layers.Activation):
    """Keras's exact GELU. TensorFlow takes a dozen operations, of which erfc in bfloat16 is very slow."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """GELU of a tensor of any shape."""
        return _gelu(inputs)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _gelu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return _gelu_forward(inputs), lambda upstream: _gelu_backward(inputs, upstream)


def _normal(values: tf.Tensor) -> tf.Tensor:
    """The standard normal distribution function."""
    return 0.5 + 0.5 * tf.math.erf(values * math.sqrt(0.5))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _gelu_forward(inputs: tf.Tensor) -> tf.Tensor:
    values = tf.cast(inputs, tf.float32)
    return tf.cast(values * _normal(values), inputs.dtype)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _gelu_backward(inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    values = tf.cast(inputs, tf.float32)
    density = tf.exp(-values * values / 2) / math.sqrt(2 * math.pi)
    slope = _normal(values) + values * density
    return tf.cast(tf.cast(upstream, tf.float32) * slope, inputs.dtype)


def _is_shifted_last_axis(layer: keras.layers.BatchNormalization) -> bool:
    """Whether TensorFlow's kernel computes what this layer does: over the last axis, and shifted."""
    is_last = layer.axis in (-1, 3)
    return bool(is_last and layer.center and not layer.synchronized)
