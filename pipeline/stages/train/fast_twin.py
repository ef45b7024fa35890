"""The model that trains: a twin of the plain one with the same weights and mathematics, but faster.

The plain model stays float32 Keras, and gets the twin's weights after the training.
"""

import math
from collections.abc import Callable
from typing import Any

from pipeline.core import keras_file
from pipeline.core.backend import keras, tf


class Twin(keras.Model):
    """A copy of `model` with its weights that computes in `precision`, "float32" or "mixed_bfloat16".

    The training loss is smoothed by `label_smoothing`, the validation loss is not. `fuses` replaces layers
    by those that are faster on a CPU. `keeps_statistics` lets batch normalization keep its moving averages.
    """

    def __init__(
        self,
        model: keras.Model,
        precision: str,
        label_smoothing: float = 0.0,
        fuses: bool = True,
        keeps_statistics: bool = False,
    ) -> None:
        super().__init__(name=model.name)

        def kind(layer: keras.Layer) -> type[keras.Layer]:
            if keeps_statistics and type(layer) is keras.layers.BatchNormalization:
                return InferenceNormalization
            return fused(layer) if fuses else type(layer)

        self.network = _copy(model, precision, kind)
        keras_file.set_weights(self.network, model.get_weights())
        self.label_smoothing = label_smoothing
        self.after_step: list[Callable[[tf.Tensor], None]] = []
        self.build(model.input_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The output shape of the plain model."""
        return self.network.output_shape

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Probabilities (n, classes) of uint8 images (n, height, width, channels)."""
        return self.network(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Keras's step, then each of `after_step`, which is called with the number of steps so far."""
        logs = super().train_step(data)
        for action in self.after_step:
            action(self.optimizer.iterations.value)
        return logs

    def compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """The mean cross-entropy of integer labels (n,), times their weights, with regularizers' losses."""
        if not (training and self.label_smoothing):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        targets = tf.one_hot(tf.reshape(y, [-1]), y_pred.shape[-1])
        losses = keras.losses.categorical_crossentropy(targets, y_pred, label_smoothing=self.label_smoothing)
        weighted = losses if sample_weight is None else losses * tf.cast(sample_weight, losses.dtype)
        return tf.add_n([tf.reduce_mean(weighted), *self.losses])


def _copy(model: keras.Model, precision: str, kind: Callable[[Any], Any]) -> keras.Model:
    """The same layers, also those of nested models, each of the `kind` that replaces it.

    The last layer and those before the first weights stay float32: pixels and probabilities need its
    digits, and cost little.
    """
    leaves = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    first = next(number for number, layer in enumerate(leaves) if layer.trainable_weights)
    exact = {id(layer) for layer in (*leaves[:first], model.layers[-1])}

    def copied(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, keras.Layer):  # a sum of two tensors, say
            return type(layer).from_config(layer.get_config())
        policy = "float32" if id(layer) in exact else precision
        return kind(layer).from_config(layer.get_config() | {"dtype": policy})

    return keras.models.clone_model(model, clone_function=copied, recursive=True)


def fused(layer: keras.Layer) -> type[keras.Layer]:
    """The fastest class that computes what `layer` does and takes its configuration; by default its own."""
    if type(layer) is keras.layers.BatchNormalization:
        can_fuse = layer.axis in (-1, 3) and layer.center and not layer.synchronized
        return BatchNormalization if can_fuse else type(layer)
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


class InferenceNormalization(keras.layers.BatchNormalization):
    """Keras's layer in inference mode: the statistics of a few new images would not suit weights that others
    trained (Keras's guide to transfer learning). Its scale and offset are trained."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:  # noqa: ARG002
        """Features of any shape, normalized by the moving averages."""
        return super().call(inputs, training=False, mask=mask)


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
