"""Logs a training's files to its MLflow run, for `pipeline.train` and `pipeline.sync`.

Whatever the run has already is left as it is, so logging again completes an interrupted run.
"""

import contextlib
import io
import time
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version

import mlflow
import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Metric
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.learning.backend import keras
from pipeline.shared.arrays import read_facts
from pipeline.shared.paths import PREPARED
from pipeline.shared.trained import Trained


def record(
    trained: Trained, model: keras.Model, train: np.ndarray, validation: np.ndarray, run_id: str
) -> None:
    """Log a training's history, data, parameters and model to the active run.

    `train` and `validation` are the images, uint8 (n, height, width, channels). The tags come last, with
    the model's digest, which identifies a complete run.
    """
    kept, facts = trained.record(), read_facts(PREPARED / "split")
    history = trained.epochs().drop(columns="epoch").to_dict("list")
    log_history(run_id, history | {name: [value] for name, value in kept["metrics"].items()})
    for context, data in (("training", train), ("validation", validation)):
        log_dataset(facts["name"], context, data, facts["split_digest"])
    mlflow.log_params({f"variant.{key}": value for key, value in kept["params"].items()})
    mlflow.log_text(summary(model), "model_summary.txt")
    if kept["tags"]["status"] == "trained" and not has_model(run_id):
        log_model(model, validation[:1])
    mlflow.set_tags(kept["tags"] | trained.tags())


def log_model(model: keras.Model, example: np.ndarray) -> None:
    """Log a model to the active run, signed for uint8 images, with an example (1, height, width, channels).

    With the TensorFlow flavour, since the Keras one cannot store an example (MLflow 3.17).
    """
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *model.output_shape[1:]))]),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # MLflow tries the example, with a progress bar
        mlflow.tensorflow.log_model(
            model,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in ("tensorflow", "keras")],
        )


def log_history(run_id: str, history: Mapping[Hashable, Sequence[float]]) -> None:
    """Log the epochs that a run lacks of each metric; the first epoch is step 0."""
    client, now = mlflow.MlflowClient(), int(time.time() * 1000)
    mlflow.flush_async_logging()
    missing = []
    for name, values in history.items():
        known = {metric.step for metric in client.get_metric_history(run_id, str(name))}
        missing += [Metric(str(name), v, now, step) for step, v in enumerate(values) if step not in known]
    if missing:
        client.log_batch(run_id, metrics=missing)


def has_model(run_id: str) -> bool:
    """Whether a run has its complete Keras model."""
    found = mlflow.search_logged_models(
        experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' and name = 'model'",
        output_format="list",
    )
    return any(model.status == "READY" for model in found)


def summary(model: keras.Model) -> str:
    """Keras's table of layers, shapes and parameters."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines)


def log_dataset(name: str, context: str, images: np.ndarray, digest: str) -> None:
    """Log the images that a run used as its input, identified by the digest of the split."""
    source = CodeDatasetSource({"mlflow.source.name": f"data/prepared ({context})"})
    dataset = NumpyDataset(images, source, name=f"{name}-{context}", digest=digest[:36])
    mlflow.log_input(dataset, context)
