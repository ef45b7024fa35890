"""Trains one variant with one seed, in an MLflow run of its own: the work of the stage `train`."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from pipeline.core import keras_file, prediction
from pipeline.core.arrays import read_arrays, read_facts, write_json
from pipeline.core.backend import keras
from pipeline.core.hardware import make_deterministic
from pipeline.core.recipe import Recipe
from pipeline.stages.train import keras_fit
from pipeline.stages.train.augmentation import without_training_only
from pipeline.stages.train.batches import Images
from pipeline.stages.train.checkpoint import Checkpoint
from pipeline.stages.train.custom_optimizers import Lookahead
from pipeline.stages.train.fast_twin import Twin
from pipeline.stages.train.initial_weights import WHITENING, set_identity, set_whitening
from pipeline.stages.train.keras_fit import Fit
from pipeline.support import mlflow_runs, mlflow_server, mlflow_store, mlflow_training
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.integrity import check_inputs
from pipeline.support.model_files import ACCURACY, ModelFiles, TrainingRecord
from pipeline.support.new_files import write_table
from pipeline.support.paths import PREPARED

PARTS = ("split", "train", "validation")


def train(
    files: ModelFiles,
    recipe: Recipe,
    tags: dict[str, str],
    start: Path | None = None,
    report: Callable[[tuple[int, int, float]], None] | None = None,
    origin: dict[str, str] | None = None,
    tracks: bool = True,
) -> None:
    """Train a model, write it with its history and record, and log all this in an MLflow run if `tracks`.

    Begins with the weights of the model file `start`, if there is one. `tags` identify what decides the
    weights (`core.result_keys`); they are logged, and their digest is the key of the checkpoint. `report`
    is called after each epoch with its number, the number of all epochs, and the validation accuracy.
    `origin` are the tags of the folder that asked for the training, by default this one.
    """
    training, validation = begin(recipe, files.seed)
    model = starting_model(recipe, training, start)
    if tracks:
        mlflow_store.check()  # last, since it creates a missing store, which a refused training must not do
    checkpoint, facts = Checkpoint(files.checkpoint, digest_of(tags)), read_facts(PREPARED / "split")
    resumed = checkpoint.read() is not None
    run = mlflow_runs.training_run(facts["name"], files.name, tags, resumed, origin)
    with run if tracks else nullcontext() as run_id:
        watching = [mlflow_training.EpochMetrics()] if run_id else []
        watching += [report_epochs(report, recipe.settings.epochs)] if report else []
        twin = make_twin(model, recipe, training)
        fit = keras_fit.fit(twin, recipe, training, validation, files.seed, *watching, checkpoint=checkpoint)
        model.set_weights(twin.get_weights())
        model = without_training_only(model)
        write(files, model, fit.history, make_record(tags, recipe, fit, model, validation))
        if run_id:
            with mlflow_server.best_effort(files.name):
                mlflow_server.ping(mlflow.get_tracking_uri())
                images = {"training": training.images, "validation": validation.images}
                mlflow_training.log_training(files, model, images, facts, run_id)
                mlflow.log_metrics({"wall_seconds": fit.wall_seconds, "cpu_seconds": fit.cpu_seconds})


def begin(recipe: Recipe, seed: int) -> tuple[Images, Images]:
    """Seed this process, and read the images for training and validation."""
    check_inputs(*(PREPARED / part for part in PARTS))
    recipe.check_machine()
    keras.utils.clear_session()  # of what this process trained before
    make_deterministic(seed, recipe.threads)
    training, validation = (read_arrays(PREPARED / part) for part in PARTS[1:])
    chosen = {name: array[: recipe.settings.training_images] for name, array in training.items()}
    return Images(**chosen), Images(**validation)


def starting_model(recipe: Recipe, training: Images, start: Path | None) -> keras.Model:
    """The model with the weights that its training starts with.

    Those of the model file `start`, if given, which may lack the last layer: that one is random then.
    """
    model = recipe.build()
    if start is not None:
        given = keras_file.load(start).get_weights()
        try:
            keras_file.set_weights(model, [*given, *model.get_weights()[len(given) :]])
        except ValueError as error:  # a search tried another width
            raise PipelineError(f"{start}: not of this network: {in_a_line(error)[:300]}") from error
        return model
    if recipe.settings.identity_kernels:
        set_identity(model)
    if whitening := recipe.settings.whitening:
        set_whitening(model, training.images[: whitening.images])
    return model


def make_twin(model: keras.Model, recipe: Recipe, train: Images) -> Twin:
    """The model that trains, with the same weights."""
    settings = recipe.settings
    twin = Twin(
        model,
        recipe.precision,
        settings.label_smoothing,
        fuses=recipe.device == "cpu",
        keeps_statistics=settings.start is not None,
    )
    if lookahead := settings.lookahead:
        total = settings.steps(len(train.labels))
        twin.after_step.append(Lookahead(twin.weights, lookahead.every, lookahead.decay, total))
    if settings.whitening:
        twin.network.get_layer(WHITENING).kernel.trainable = False
    return twin


def make_record(
    tags: dict[str, str], recipe: Recipe, fit: Fit, model: keras.Model, validation: Images
) -> TrainingRecord:
    """The record of the training; the status is `trained`, or `diverged` with a reason.

    Its metrics are those that the epochs do not show: the best epoch, counted from 1, and the accuracy of the
    kept weights.
    """
    history, resolved = fit.history, ("threads", "precision", "device")
    params = flat(recipe.settings.content()) | {name: getattr(recipe, name) for name in resolved}
    metrics = {"stopped_epoch": len(history["loss"]), "parameters": model.count_params()}
    if fit.divergence is not None:
        tags = tags | {"status": "diverged", "reason": fit.divergence}
        return TrainingRecord(tags=tags, params=params, metrics=metrics)
    stopping = recipe.settings.early_stopping
    monitor = stopping.monitor if stopping else "val_loss"
    best = np.argmax if monitor == "val_accuracy" else np.argmin
    first = recipe.settings.monitored_from
    metrics["best_epoch"] = first + int(best(history[monitor][first:])) + 1
    metrics[ACCURACY] = prediction.accuracy(model, validation.images, validation.labels)
    return TrainingRecord(tags=tags | {"status": "trained"}, params=params, metrics=metrics)


def write(
    files: ModelFiles, model: keras.Model, history: dict[str, list[float]], record: TrainingRecord
) -> None:
    """Write the model, its history (epochs count from 1) and the record of its training."""
    keras_file.save(model, files.model)
    epochs = pd.RangeIndex(1, len(history["loss"]) + 1, name="epoch")
    table = pd.DataFrame(history, index=epochs).sort_index(axis=1)
    write_table(files.history, table, index=True)
    write_json(files.folder / "training.json", record.model_dump())


def report_epochs(report: Callable[[tuple[int, int, float]], None], epochs: int) -> keras.callbacks.Callback:
    """Reports each epoch, counted from 1."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: report((epoch + 1, epochs, logs["val_accuracy"]))
    )


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"name": "x", "b": 1}, "c": 2} as {"a": "x", "a.b": 1, "c": 2}: `a: x` is short for that name."""
    result: dict[str, Any] = {}
    for key, value in nested.items():
        inner = dict(value) if isinstance(value, dict) else {"name": value}
        if "name" in inner:
            result[prefix + key] = inner.pop("name")
        result |= flat(inner, f"{prefix}{key}.")
    return result
