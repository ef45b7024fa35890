"""A model's twin for training: the same weights and the same mathematics, arranged for a CPU's cores.

Only the twin trains. The model itself stays plain Keras in float32, and takes over the twin's weights.
"""

from itertools import pairwise
from typing import Any

from pipeline.learning.backend import keras, tf


def twin(model: keras.Sequential, precision: str, threads: int) -> keras.Sequential:
    """A copy of `model` with its weights, which computes in `precision` on `threads` threads.

    `precision` is a Keras dtype policy: "float32" or "mixed_bfloat16". Rounding aside, float32 gives the
    updates that the model itself would. No batch may have fewer images than `threads`.
    """
    policies = _policies(model, precision)
    copies = [_copy(layer, policy) for layer, policy in zip(model.layers, policies, strict=True)]
    layers = [keras.Input(batch_shape=model.input_shape, dtype=model.inputs[0].dtype), *copies]
    made = Sharded(threads, layers, model.name) if threads > 1 else keras.Sequential(layers, name=model.name)
    made.set_weights(model.get_weights())
    return made


class Sharded(keras.Sequential):
    """Runs each batch as `shards` parts, side by side, and joins what they give.

    Gradients are sums over images, so that the parts give the batch's. Each part's operations stay on
    one thread: sharing a convolution of few images among threads costs more than it saves. Only
    normalization, whose statistics are of the whole batch, has the parts joined.
    """

    def __init__(self, shards: int, layers: list[keras.Layer], name: str) -> None:
        super().__init__(layers, name=name)
        self.shards = shards

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:  # noqa: ARG002
        """Of `inputs` (n, ...), the outputs (n, ...); n is `shards` or more, since pooling an empty part
        ends the process."""
        count = tf.shape(inputs)[0]
        cuts = [count * part // self.shards for part in range(self.shards + 1)]
        sizes = [end - start for start, end in pairwise(cuts)]
        parts = tf.split(inputs, sizes, num=self.shards)
        for layer in self.layers:  # which know from Keras whether they train
            if isinstance(layer, BatchNormalization):
                parts = tf.split(layer(tf.concat(parts, axis=0)), sizes, num=self.shards)
            else:
                parts = [layer(part) for part in parts]
        return tf.concat(parts, axis=0)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with TensorFlow's fused kernel in training, where Keras runs a dozen operations."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Of images' features (n, height, width, channels), the same normalized; moves the averages."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
        )
        count = tf.cast(tf.size(inputs) / self.gamma.shape[0], tf.float32)
        variance *= (count - 1) / count  # the kernel's is of a sample, Keras's of the batch
        for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + new * (1 - self.momentum))
        return normalized


def _policies(model: keras.Sequential, precision: str) -> list[str]:
    """Each layer's policy. What comes before the first weights, and the output, stay float32: pixels
    and probabilities need its digits, and cost little."""
    first = next(n for n, layer in enumerate(model.layers) if layer.weights)
    inner = range(first, len(model.layers) - 1)
    return [precision if n in inner else "float32" for n in range(len(model.layers))]


def _copy(layer: keras.Layer, policy: str) -> keras.Layer:
    kind = BatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
    return kind.from_config(layer.get_config() | {"dtype": policy})
