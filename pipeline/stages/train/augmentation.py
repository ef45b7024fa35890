"""Custom layers that act in training only. They are not part of the saved model, which stays plain Keras.

A layer marked with `training_only = True` keeps its input's shape, has no weights, and passes its input
through if it is not called for training.
"""

from typing import Any

from pipeline.core.backend import keras, tf


class PixelLayer(keras.layers.Layer):
    """The base of layers that change each image at random, by a number of `pixels`, in training only."""

    training_only = True

    def __init__(self, pixels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pixels = pixels
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Raise ValueError if `pixels` does not suit images (n, height, width, channels)."""
        largest = min(size for size in input_shape[1:3] if size)
        if self.pixels not in range(1, largest + 1):
            raise ValueError(f"pixels: must be a whole number from 1 to {largest}; received {self.pixels!r}")

    def get_config(self) -> dict[str, Any]:
        """The arguments of this layer."""
        return super().get_config() | {"pixels": self.pixels}


@keras.saving.register_keras_serializable(package="pipeline")
class RandomShift(PixelLayer):
    """Shift each image by a random whole number of pixels, at most `pixels`, filling with its mirror image.

    Unlike Keras's RandomCrop it draws a shift for each image, and unlike RandomTranslation it does not
    interpolate. He et al., Deep Residual Learning for Image Recognition (2016), section 4.2, pad with zeros.
    """

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Images (n, height, width, channels), shifted in training."""
        if not training:
            return images
        count, height, width = (tf.shape(images)[axis] for axis in range(3))
        drawn = keras.random.uniform((count, 2), 0, 2 * self.pixels + 1, seed=self.seed_generator)
        offsets = tf.cast(tf.floor(drawn), tf.int32)
        edge = [self.pixels, self.pixels]
        padded = tf.pad(images, [[0, 0], edge, edge, [0, 0]], mode="SYMMETRIC")
        rows = offsets[:, :1] + tf.range(height)  # (n, height)
        columns = offsets[:, 1:] + tf.range(width)
        shifted = tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        return tf.ensure_shape(shifted, images.shape)


@keras.saving.register_keras_serializable(package="pipeline")
class Cutout(PixelLayer):
    """Set a square of `pixels` to zero in each image, anywhere in it (DeVries and Taylor, 2017).

    Unlike Keras's RandomErasing it draws a place for each image of a batch in a few operations.
    """

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Images (n, height, width, channels), each with a hole in training."""
        if not training:
            return images
        count, height, width = (tf.shape(images)[axis] for axis in range(3))
        drawn = keras.random.uniform((count, 2), seed=self.seed_generator)
        inside = []
        for axis, size in enumerate((height, width)):
            first = tf.floor(drawn[:, axis] * tf.cast(size - self.pixels + 1, tf.float32))
            place = tf.range(tf.cast(size, tf.float32)) - first[:, None]  # (n, size)
            inside.append((place >= 0) & (place < self.pixels))
        rows, columns = inside
        hole = rows[:, :, None, None] & columns[:, None, :, None]
        return tf.where(hole, tf.zeros((), images.dtype), images)


@keras.saving.register_keras_serializable(package="pipeline")
class Augmentation(keras.layers.Layer):
    """Applies random layers one after another, in training only.

    They get pixels from 0 to 255, as Keras's layers expect by default (`value_range`), and must keep the
    images' shape.
    """

    training_only = True

    def __init__(self, layers: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        read = keras.saving.deserialize_keras_object
        self.layers = [read(layer) if isinstance(layer, dict) else layer for layer in layers]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build each layer."""
        for layer in self.layers:
            layer.build(input_shape)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Images (n, height, width, channels) as float32, each changed at random in training."""
        images = tf.cast(images, tf.float32)
        for layer in self.layers if training else ():
            images = layer(images, training=True)
        return images

    def compute_output_spec(self, images: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        """The shape of the images, as float32."""
        return keras.KerasTensor(images.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of this layer."""
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return super().get_config() | {"layers": layers}


def without_training_only(model: keras.Model) -> keras.Model:
    """A model of the same layers, without those that act in training only."""
    if not any(is_training_only(layer) for layer in model.layers):
        return model
    if isinstance(model, keras.Sequential):
        kept = [layer for layer in model.layers if not is_training_only(layer)]
        return keras.Sequential([model.inputs[0], *kept], name=model.name)

    def call(layer: keras.Layer, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return inputs if is_training_only(layer) else layer(inputs, *args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def is_training_only(layer: keras.Layer) -> bool:
    """Whether a layer acts in training only."""
    return bool(getattr(layer, "training_only", False))
