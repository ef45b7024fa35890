"""Logs a training's epochs and files to its MLflow run, for `train` and `sync`.

Logs only what the run lacks, so logging again completes an interrupted run.
"""

import contextlib
import io
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.support import mlflow_runs
from pipeline.support.model_files import ACCURACY, AFTER_TRAINING, ModelFiles
from pipeline.support.words import count

if TYPE_CHECKING:
    import keras


class EpochMetrics(mlflow.keras.MlflowCallback):  # type: ignore[name-defined]
    """Autologging's own callback: it logs the metrics of each epoch as it ends, and does not wait.

    `mlflow.keras.autolog` would add this callback, and also log every argument of `fit` as a parameter
    (`batch_size None`, `shuffle False`), a second name for each validation score, and nothing of a resumed
    training. `log_training` logs the parameters that decide the result instead.
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Log no parameters."""

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Log no second name for the validation scores."""


def log_training(
    files: ModelFiles,
    model: "keras.Model",
    images: dict[str, np.ndarray],
    facts: dict[str, Any],
    run_id: str,
) -> None:
    """Log a training's history, data, parameters and model to the active run.

    `images` are those of `training` and `validation`, uint8 (n, height, width, channels); `facts` are those
    of the split. The tags come last, with the model's digest, which identifies a complete run.
    """
    record = files.record()
    mlflow_runs.log_history(run_id, files.epochs().drop(columns="epoch").to_dict("list"))
    datasets = {part: mlflow_runs.dataset(facts, part, these) for part, these in images.items()}
    for part, dataset in datasets.items():
        mlflow.log_input(dataset, part)
    mlflow.log_params({"variant": files.variant, "seed": files.seed} | record.params)
    summary: list[str] = []  # Keras's table of layers, shapes and parameters
    model.summary(print_fn=summary.append)
    mlflow.log_text("\n".join(summary), "model_summary.txt")
    known = mlflow.get_run(run_id).data.metrics
    missing = {name: value for name, value in record.metrics.items() if name not in known}
    accuracy = missing.pop(ACCURACY, None)
    mlflow.log_metrics(missing)
    if record.divergence is None:
        logged = mlflow_runs.logged_model(run_id, files.name)
        example = images["validation"][:1]
        model_id = logged.model_id if logged else log_model(files, model, example, facts)
        if accuracy is not None:
            mlflow.log_metric(ACCURACY, accuracy, model_id=model_id, dataset=datasets["validation"])
    mlflow.set_tags(record.tags | files.tags() | {MLFLOW_RUN_NOTE: description(files)})


def description(files: ModelFiles) -> str:
    """What the pages of a run and of its model say, in Markdown."""
    record = files.record()
    epochs = record.metrics["stopped_epoch"]
    return (
        f"The variant **{files.variant}** with seed {files.seed}: {epochs} of at most "
        f"{count(record.params['epochs'], 'epoch')}, {record.metrics['parameters']:,.0f} parameters. "
        f"{record.outcome.capitalize()}."
    )


def log_model(files: ModelFiles, model: "keras.Model", example: np.ndarray, facts: dict[str, Any]) -> str:
    """Log a model to the active run, with an example (1, height, width, channels), uint8. Returns its id.

    Its metadata name its classes and data, so `classify` needs nothing else. It has the TensorFlow flavour,
    since the Keras one cannot store an example (MLflow 3.17).
    """
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *model.output_shape[1:]))]),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # MLflow tries the example, with a progress bar
        logged = mlflow.tensorflow.log_model(
            model,
            name=files.name,
            signature=signature,
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in ("tensorflow", "keras")],
            metadata={key: facts[key] for key in ("classes", "data_digest", "fit")},
            tags={MLFLOW_RUN_NOTE: description(files)},
            step=AFTER_TRAINING,
        )
    return str(logged.model_id)
