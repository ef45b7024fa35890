"""Images in memory as batches of TensorFlow's, in an order that depends on the seed and the epoch only.

So the same seed and number of threads give the same weights bit for bit on a CPU.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.core.backend import tf

VALIDATION_BATCH = 500
FLIP = -1  # in place of an epoch, in the seed of what stays the same in all


@dataclass(frozen=True)
class Images:
    """uint8 images (n, height, width, channels) with their int64 labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def training_batches(
    data: Images, batch_size: int, seed: int, epoch: tf.Variable, flip: str | None = None
) -> tf.data.Dataset:
    """An epoch of (images, labels) batches, in an order drawn for each (seed, epoch).

    `epoch` is read when the iteration starts. The last batch holds the rest.
    """
    count, steps = len(data.labels), -(-len(data.labels) // batch_size)
    images, labels = tf.constant(data.images), tf.constant(data.labels)
    if flip:  # the mirrored ones follow, since mirroring each batch takes 30 times as long as the gather
        images, labels = tf.concat([images, tf.reverse(images, [2])], 0), tf.concat([labels, labels], 0)

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[seed, epoch])
        if flip:
            order += count * tf.cast(tf.gather(flips(count, seed, epoch, flip), order), order.dtype)

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[step * batch_size : (step + 1) * batch_size]
            return tf.gather(images, rows), tf.gather(labels, rows)

        return tf.data.Dataset.range(steps).map(batch)

    batches = tf.data.Dataset.from_tensors(0).flat_map(one_epoch)
    return _without_autotuning(batches.apply(tf.data.experimental.assert_cardinality(steps)))


def flips(count: int, seed: int, epoch: tf.Variable, flip: str) -> tf.Tensor:
    """Which of `count` images an epoch mirrors.

    `random`: half of them, drawn anew for each epoch. `alternating`: half in even epochs and the others in
    odd ones (Jordan, 2024, section 3.6).
    """
    if flip == "random":
        return tf.random.stateless_uniform([count], [seed, FLIP - 1 - epoch], 0, 2, tf.int64) == 1
    return (tf.random.stateless_uniform([count], [seed, FLIP], 0, 2, tf.int64) + epoch) % 2 == 1


def validation_batches(data: Images) -> tf.data.Dataset:
    """All (images, labels) in order, in large batches."""
    batches = tf.data.Dataset.from_tensor_slices((data.images, data.labels)).batch(VALIDATION_BATCH)
    return _without_autotuning(batches.cache())


def _without_autotuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    # Keras returns from an epoch only at the next tick of tf.data's autotuning thread, whose ticks
    # are up to ten seconds apart: with it, short epochs take several times as long as their work.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    options.deterministic = True
    return batches.prefetch(2).with_options(options)
