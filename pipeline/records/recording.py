"""What a training leaves in its MLflow run: written from its files alone, by the training and by `sync`.

Everything here may be done twice: what a run has already is left as it is, so that a run which was
interrupted anywhere is completed by doing it all again.
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Metric

from pipeline.data.arrays import file_digest, read_facts
from pipeline.learning import models
from pipeline.learning.backend import keras
from pipeline.learning.training import Images
from pipeline.paths import PREPARED
from pipeline.records import tracking


def record(folder: Path, model: keras.Model, train: Images, validation: Images, run_id: str) -> None:
    """Log models/VARIANT-SEED to the active run: history, data, parameters, figures, model.

    The tags come last, with the model's digest, by which a whole run is found.
    """
    kept = tracking.read_training(folder)
    facts = read_facts(PREPARED / "split")
    history = pd.read_csv(folder / "history.csv", index_col="epoch", float_precision="round_trip")
    log_history(run_id, history.to_dict("list") | {name: [value] for name, value in kept["metrics"].items()})
    for context, data in (("training", train), ("validation", validation)):
        log_dataset(facts["name"], context, data.images, facts["split_digest"])
    mlflow.log_params({f"variant.{key}": value for key, value in kept["params"].items()})
    mlflow.log_text(summary(model), "model_summary.txt")
    if kept["tags"]["status"] == "trained" and not has_model(run_id):
        models.log(model, validation.images[:1])
    mlflow.set_tags(kept["tags"] | {"model_digest": file_digest(folder / "model.keras")})


def log_history(run_id: str, history: Mapping[Hashable, Sequence[float]]) -> None:
    """Log the epochs of each metric that a run lacks; the first epoch is step 0."""
    client, now = mlflow.MlflowClient(), int(time.time() * 1000)
    mlflow.flush_async_logging()
    missing = []
    for name, values in history.items():
        known = {metric.step for metric in client.get_metric_history(run_id, str(name))}
        missing += [Metric(str(name), v, now, step) for step, v in enumerate(values) if step not in known]
    if missing:
        client.log_batch(run_id, metrics=missing)


def has_model(run_id: str) -> bool:
    """Whether a run has its Keras model, whole."""
    found = mlflow.search_logged_models(
        experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' and name = 'model'",
        output_format="list",
    )
    return any(model.status == "READY" for model in found)


def summary(model: keras.Model) -> str:
    """The table of layers, shapes and parameters that Keras prints."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines)


def log_dataset(name: str, context: str, images: np.ndarray, digest: str) -> None:
    """Name the images that a run used as its input, by our own digest of the split."""
    source = CodeDatasetSource({"mlflow.source.name": f"data/prepared ({context})"})
    dataset = NumpyDataset(images, source, name=f"{name}-{context}", digest=digest[:36])
    mlflow.log_input(dataset, context)
