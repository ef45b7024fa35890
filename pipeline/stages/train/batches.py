"""Memory-mapped images as batches of TensorFlow's, in an order that depends on the seed and the epoch only.

The images are never copied as a whole: a job takes the memory of its network, and several jobs share the
pages of the file. The same seed and number of threads give the same weights bit for bit on a CPU.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core import prediction
from pipeline.core.backend import tf

ALIGNMENT = 64  # of the bytes of a tensor; TensorFlow ends the process if they start elsewhere
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
    images, labels = in_place(data.images), tf.constant(data.labels)

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[seed, epoch])
        flipped = flips(count, seed, epoch, flip) if flip else None

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[step * batch_size : (step + 1) * batch_size]
            pixels = tf.gather(images, rows)
            if flipped is not None:
                pixels = mirror(pixels, tf.gather(flipped, rows))
            return pixels, tf.gather(labels, rows)

        return tf.data.Dataset.range(steps).map(batch)

    batches = tf.data.Dataset.from_tensors(0).flat_map(one_epoch)
    return _with_options(batches.apply(tf.data.experimental.assert_cardinality(steps)))


def flips(count: int, seed: int, epoch: tf.Variable, flip: str) -> tf.Tensor:
    """Which of `count` images an epoch mirrors.

    `random`: half of them, drawn anew for each epoch. `alternating`: half in even epochs and the others in
    odd ones (Jordan, 2024, section 3.6).
    """
    if flip == "random":
        return tf.random.stateless_uniform([count], [seed, FLIP - 1 - epoch], 0, 2, tf.int64) == 1
    return (tf.random.stateless_uniform([count], [seed, FLIP], 0, 2, tf.int64) + epoch) % 2 == 1


def mirror(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Images (n, height, width, channels), those mirrored that are `chosen`, bool (n,)."""
    count = tf.shape(images)[0]
    lines = tf.reshape(images, [-1, *images.shape[2:]])  # for which TensorFlow has a faster way
    both = tf.concat([images, tf.reshape(tf.reverse(lines, [1]), tf.shape(images))], 0)
    return tf.gather(both, tf.range(count) + count * tf.cast(chosen, count.dtype))


def validation_batches(data: Images) -> tf.data.Dataset:
    """All (images, labels) in order, in large batches."""
    images, labels = in_place(data.images), tf.constant(data.labels)
    size = prediction.batch_size(data.images)

    def batch(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images[start : start + size], labels[start : start + size]

    return _with_options(tf.data.Dataset.range(0, len(data.labels), size).map(batch))


def in_place(images: np.ndarray) -> tf.Tensor:
    """A tensor that reads an array's own memory, such as the pages of a file; `tf.constant` copies it.

    An array that is not aligned is copied. That of a `.npy` file is: its data start at a multiple of 64.
    """
    if images.ctypes.data % ALIGNMENT or not images.flags.c_contiguous:
        return tf.constant(images)
    return tf.experimental.dlpack.from_dlpack(np.asarray(_Shareable(images)).__dlpack__())


class _Shareable:
    """An array that DLPack takes although it is read-only: TensorFlow does not write into tensors."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # which closes its file once nothing refers to it
        self.__array_interface__: dict[str, Any] = array.__array_interface__ | {
            "data": (array.ctypes.data, False)
        }


def _with_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    # Keras returns from an epoch only at the next tick of tf.data's autotuning thread, whose ticks
    # are up to ten seconds apart: with it, short epochs take several times as long as their work.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False  # it would copy all images
    options.threading.private_threadpool_size = 1
    options.deterministic = True
    return batches.prefetch(2).with_options(options)
