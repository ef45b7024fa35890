"""Training a Keras model on arrays in memory: data order, callbacks and fit.

Everything random depends on the seed, and the order of the images on (seed, epoch), so that the same
seed and number of threads give the same weights bit for bit on a CPU.
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.learning.backend import keras, tf
from pipeline.learning.recipe import Recipe
from pipeline.training.checkpoint import Checkpoint, Resumable
from pipeline.training.optimization import Freeze
from pipeline.training.start import WHITENING

VALIDATION_BATCH = 500
STEPS_PER_EXECUTION = 50
FLIP = -1  # in place of an epoch, in the seed of what stays the same in all


@dataclass(frozen=True)
class Images:
    """uint8 images (n, height, width, channels) with their int64 labels (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int | None) -> "Images":
        """The first `count` images; all if it is None."""
        return Images(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Fit:
    """The metrics of each epoch, and the seconds that all took together."""

    history: dict[str, list[float]]
    wall_seconds: float
    cpu_seconds: float

    @property
    def divergence(self) -> str | None:
        """The first loss that is not finite, in words; None if all are finite."""
        for epoch, losses in enumerate(zip(self.history["loss"], self.history["val_loss"], strict=True), 1):
            for name, loss in zip(("loss", "validation loss"), losses, strict=True):
                if not math.isfinite(loss):
                    return f"its {name} is {loss} in epoch {epoch}"
        return None


def fit(
    model: keras.Model,
    recipe: Recipe,
    training: Images,
    validation: Images,
    seed: int,
    *watching: keras.callbacks.Callback,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Compile and train `model` in place as the recipe says, with more callbacks `watching` it.

    At the end the model holds the weights of the best epoch if the recipe restores them, else those of
    the last epoch. With a `checkpoint` the training resumes from it, and saves its own.
    """
    settings = recipe.settings
    flips = settings.get("flip") == "alternating"
    compile_model(model, recipe)
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    chosen = list(_callbacks(settings))
    resumable = Resumable(checkpoint, chosen)
    model.fit(
        training_batches(training, settings["batch_size"], seed, epoch, flips),
        validation_data=validation_batches(validation),
        initial_epoch=resumable.epochs,
        epochs=resumable.epochs if resumable.stopped else settings["epochs"],
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda n, _: epoch.assign(n)),
            keras.callbacks.TerminateOnNaN(),
            *chosen,
            resumable,
            *watching,
        ],
        shuffle=False,  # the batches come shuffled
        verbose=1 if sys.stdout.isatty() else 0,
    )
    seconds = resumable.seconds()
    return Fit(resumable.history, seconds["wall"], seconds["cpu"])


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Attach the recipe's optimizer, the cross-entropy of integer labels, and accuracy.

    Also makes their variables, since a first step that has to make them is traced twice.
    """
    model.compile(
        optimizer=recipe.make_optimizer(),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, tf.zeros(1, tf.int64), tf.zeros((1, *model.output_shape[1:])))
    model.reset_metrics()


def training_batches(
    data: Images, batch_size: int, seed: int, epoch: tf.Variable, flip: bool = False
) -> tf.data.Dataset:
    """An epoch of (images, labels) batches, in an order drawn for each (seed, epoch).

    `epoch` is read when the iteration starts. The last batch holds the rest. With `flip` a random half of
    the images is mirrored in even epochs, and the other half in odd ones (Jordan, 2024, section 3.6).
    """
    count, steps = len(data.labels), -(-len(data.labels) // batch_size)
    images, labels = tf.constant(data.images), tf.constant(data.labels)
    half = tf.random.stateless_uniform([count], [seed, FLIP], 0, 2, tf.int64) if flip else None

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[seed, epoch])

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[step * batch_size : (step + 1) * batch_size]
            pixels = tf.gather(images, rows)
            if half is not None:
                mirrored = (tf.gather(half, rows) + epoch) % 2 == 1
                pixels = tf.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
            return pixels, tf.gather(labels, rows)

        return tf.data.Dataset.range(steps).map(batch)

    batches = tf.data.Dataset.from_tensors(0).flat_map(one_epoch)
    return _without_autotuning(batches.apply(tf.data.experimental.assert_cardinality(steps)))


def smallest_batch(batch_size: int, training: Images, validation: Images) -> int:
    """The number of images in the smallest batch of an epoch, the last of training or of validation."""
    sizes = ((len(training.labels), batch_size), (len(validation.labels), VALIDATION_BATCH))
    return min(count % size or size for count, size in sizes)


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


def _callbacks(settings: dict[str, Any]) -> Iterator[keras.callbacks.Callback]:
    """Fresh callbacks for one training. The learning rate is lowered before stopping is considered."""
    if reducing := settings.get("reduce_learning_rate"):
        yield keras.callbacks.ReduceLROnPlateau(**reducing)
    if whitening := settings.get("whitening"):
        yield Freeze(WHITENING, whitening["epochs"])
    if stopping := settings.get("early_stopping"):
        yield keras.callbacks.EarlyStopping(**stopping)
    if not sys.stdout.isatty():
        yield EpochLine(settings["epochs"])


class EpochLine(keras.callbacks.Callback):
    """Prints a line after each epoch, with the time that the remaining ones take."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self.first: int | None = None  # not 0 if the training was resumed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        if self.first is None:
            self.first, self.started = epoch, time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the epoch's metrics."""
        done = epoch + 1 - (self.first or 0)
        left = (time.monotonic() - self.started) / done * (self.epochs - epoch - 1)
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        print(
            f"{self.model.name}  epoch {epoch + 1}/{self.epochs}  {metrics}  "
            f"at most {int(left // 60)}:{int(left % 60):02d} left",
            flush=True,
        )
