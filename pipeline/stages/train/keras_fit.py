"""Compiles and fits a Keras model, with the callbacks that its recipe asks for."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.core.backend import keras, tf
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Variant
from pipeline.stages.train.batches import Images, training_batches, validation_batches
from pipeline.stages.train.checkpoint import Checkpoint, Resumable
from pipeline.stages.train.custom_optimizers import Freeze
from pipeline.stages.train.initial_weights import WHITENING

STEPS_PER_EXECUTION = 50


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
    compile_model(model, recipe)
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    chosen = list(_callbacks(settings))
    resumable = Resumable(checkpoint, chosen)
    model.fit(
        training_batches(training, settings.batch_size, seed, epoch, settings.flip),
        validation_data=validation_batches(validation),
        initial_epoch=resumable.epochs,
        epochs=resumable.epochs if resumable.stopped else settings.epochs,
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


def _callbacks(settings: Variant) -> Iterator[keras.callbacks.Callback]:
    """Fresh callbacks for one training. The learning rate is lowered before stopping is considered."""
    if reducing := settings.reduce_learning_rate:
        yield keras.callbacks.ReduceLROnPlateau(**dict(reducing))
    if whitening := settings.whitening:
        yield Freeze(WHITENING, whitening.epochs)
    if stopping := settings.early_stopping:
        yield keras.callbacks.EarlyStopping(**dict(stopping))
    if not sys.stdout.isatty():
        yield EpochLine(settings.epochs)


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
