"""The model that trains: a twin of the plain one with the same weights and mathematics, made for speed.

The plain model stays float32 Keras, and takes over the twin's weights after the training.
"""

from collections.abc import Callable
from typing import Any

from pipeline.core.backend import keras, tf
from pipeline.stages.train.fused_layers import fused


class Twin(keras.Model):
    """A copy of `model` with its weights that computes in `precision`, "float32" or "mixed_bfloat16".

    `fuses` replaces layers by those of `fused_layers`, which are made for a CPU.

    The training loss is smoothed by `label_smoothing`, the validation loss is not.
    """

    def __init__(
        self,
        model: keras.Model,
        precision: str,
        label_smoothing: float = 0.0,
        fuses: bool = True,
    ) -> None:
        super().__init__(name=model.name)
        self.network = _copy(model, precision, fused if fuses else type)
        self.network.set_weights(model.get_weights())
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
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The mean cross-entropy of integer labels (n,), with the losses of regularizers."""
        if not (training and self.label_smoothing):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        targets = tf.one_hot(tf.reshape(y, [-1]), y_pred.shape[-1])
        losses = keras.losses.categorical_crossentropy(targets, y_pred, label_smoothing=self.label_smoothing)
        return tf.add_n([tf.reduce_mean(losses), *self.losses])


def _copy(model: keras.Model, precision: str, kind: Callable[[Any], Any]) -> keras.Model:
    """The same layers, also those of nested models, each of the `kind` that takes its place.

    Layers before the first weights, and the last, stay float32: pixels and probabilities need its digits,
    and cost little.
    """
    leaves = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    first = next(number for number, layer in enumerate(leaves) if layer.weights)
    exact = {id(layer) for layer in (*leaves[:first], model.layers[-1])}

    def copied(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, keras.Layer):  # a sum of two tensors, say
            return type(layer).from_config(layer.get_config())
        policy = "float32" if id(layer) in exact else precision
        return kind(layer).from_config(layer.get_config() | {"dtype": policy})

    return keras.models.clone_model(model, clone_function=copied, recursive=True)
