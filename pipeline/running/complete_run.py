"""Completes the MLflow run of a training from the files that the training wrote."""

import mlflow

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED


def complete_run(files: ModelFiles) -> None:
    """Complete the run that a training began, or log a new one."""
    from pipeline.core import keras_file  # TensorFlow
    from pipeline.support import mlflow_training

    mlflow_store.check()
    record, facts = files.record(), read_facts(PREPARED / "split")
    images = {
        "training": read_arrays(PREPARED / "train")["images"][: record.params.get("training_images")],
        "validation": read_arrays(PREPARED / "validation")["images"],
    }
    tags = {key: value for key, value in record.tags.items() if key not in {"status", "reason"}}
    with mlflow_runs.training_run(facts["name"], files.name, tags, resumed=True) as run_id:
        mlflow.set_tag("recreated", "true")
        mlflow_training.log_training(files, keras_file.load(files.model), images, facts, run_id)
