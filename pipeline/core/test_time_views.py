"""Test-time views: a model's answers for an image, averaged over variants of it.

The served model carries a copy of this file, so it imports nothing of the pipeline.
"""

from collections.abc import Callable

import tensorflow as tf


def average(model: Callable[..., tf.Tensor], images: tf.Tensor, views: str | None) -> tf.Tensor:
    """Mean probabilities (n, classes) of uint8 images (n, height, width, channels) over these views.

    None: the image alone. `mirror`: the image and its mirror image. `mirror_shift`: half that, half the mean
    over both, shifted by a pixel up and left, or down and right, filled by reflection. As in airbench94
    (Jordan, 94% on CIFAR-10 in 3.29 Seconds, 2024, section 3.5), with probabilities in place of logits.
    """
    if views is None:
        return model(images, training=False)

    def mirrored(some: tf.Tensor) -> tf.Tensor:
        return (model(some, training=False) + model(some[:, :, ::-1], training=False)) / 2

    if views == "mirror":
        return mirrored(images)
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    first, second = (mirrored(padded[:, at : at + height, at : at + width]) for at in (0, 2))
    return mirrored(images) / 2 + (first + second) / 4
