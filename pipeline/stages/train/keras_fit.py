"""Compiles and fits a Keras model, with the callbacks that its recipe asks for."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.backend import keras, tf
from pipeline.core.recipe import Recipe
from pipeline.stages.train.batches import Images, training_batches, validation_batches
from pipeline.stages.train.checkpoint import Checkpoint, Resumable
from pipeline.stages.train.frozen_start import FrozenStart
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
    callbacks = list(_callbacks(recipe, model))
    resumable = Resumable(checkpoint, callbacks)
    in_terminal = sys.stdout.isatty()
    if not in_terminal:
        callbacks.append(_line_per_epoch(model.name, settings.epochs))
    model.fit(
        training_batches(training, settings.batch_size, seed, epoch, settings.flip),
        validation_data=validation_batches(validation),
        class_weight=balanced_weights(training.labels) if settings.class_weight else None,
        initial_epoch=resumable.epochs,
        epochs=resumable.epochs if resumable.stopped else settings.epochs,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda number, _: epoch.assign(number)),
            keras.callbacks.TerminateOnNaN(),
            *callbacks,
            resumable,
            *watching,
        ],
        shuffle=False,  # the batches come shuffled
        verbose=1 if in_terminal else 0,
    )
    seconds = resumable.seconds()
    return Fit(resumable.history, seconds["wall"], seconds["cpu"])


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Attach the recipe's optimizer, the cross-entropy of integer labels, and accuracy.

    Also creates their variables, since a first step that has to create them is traced twice.
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


def balanced_weights(labels: np.ndarray) -> dict[int, float]:
    """The weight of each class in the training loss: all classes together weigh the same.

    As scikit-learn's `class_weight="balanced"`: n / (classes * images of the class).
    """
    counts = np.bincount(labels)
    return {label: len(labels) / (len(counts) * count) for label, count in enumerate(counts) if count}


def _callbacks(recipe: Recipe, model: keras.Model) -> Iterator[keras.callbacks.Callback]:
    """The callbacks of a variant. The learning rate is lowered before stopping is considered."""
    settings = recipe.settings
    if settings.start and settings.start.frozen_epochs:
        yield FrozenStart(recipe, settings.start)
    if reducing := settings.reduce_learning_rate:
        yield keras.callbacks.ReduceLROnPlateau(**dict(reducing))
    if whitening := settings.whitening:
        yield _freeze(model, WHITENING, whitening.epochs)
    if stopping := settings.early_stopping:
        yield keras.callbacks.EarlyStopping(**dict(stopping), start_from_epoch=settings.monitored_from)


def _freeze(model: keras.Model, name: str, epochs: int) -> keras.callbacks.Callback:
    """Trains a layer of a twin's network for so many epochs; later ones do not compute its gradient."""
    layer = model.network.get_layer(name)

    def freeze(epoch: int, _: dict[str, float]) -> None:
        if epoch >= epochs and layer.trainable:
            layer.trainable = False
            model.make_train_function(force=True)

    return keras.callbacks.LambdaCallback(on_epoch_begin=freeze)


def _line_per_epoch(name: str, epochs: int) -> keras.callbacks.Callback:
    def show(epoch: int, logs: dict[str, float]) -> None:
        metrics = "  ".join(f"{metric} {value:.4g}" for metric, value in logs.items())
        print(f"{name}  epoch {epoch + 1}/{epochs}  {metrics}", flush=True)

    return keras.callbacks.LambdaCallback(on_epoch_end=show)
