"""Completes the MLflow run of a training from the files that the training wrote."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.shared.stored_probabilities import read_right
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ACCURACY, ModelFiles
from pipeline.support.origin import origin
from pipeline.support.paths import PREPARED

if TYPE_CHECKING:
    import keras

ROUNDING = 1e-9


def complete_run(files: ModelFiles, **tags: str) -> None:
    """Complete the run that a training began, or log a new one with these tags.

    Raises PipelineError if the recorded validation accuracy is not the model's.
    """
    from pipeline.core import keras_file  # TensorFlow
    from pipeline.support import mlflow_training

    mlflow_store.check()
    record, facts = files.record(), read_facts(PREPARED / "split")
    images = {
        "training": read_arrays(PREPARED / "train")["images"][: record.params.get("training_images")],
        "validation": read_arrays(PREPARED / "validation")["images"],
    }
    model = keras_file.load(files.model)
    if record.divergence is None:
        check_accuracy(files, model, images["validation"])
    new = origin() | tags
    with mlflow_runs.training_run(
        facts["name"], files.name, record.identity, resumed=True, made_by=new
    ) as run_id:
        mlflow_training.log_training(files, model, images, facts, run_id)


def check_accuracy(files: ModelFiles, model: "keras.Model", images: np.ndarray) -> None:
    """Raise PipelineError if a model's recorded validation accuracy is not that of its stored probabilities.

    Without them, it predicts `images`. An image in a thousand may differ, as another processor rounds.
    """
    from pipeline.core import prediction

    if files.predictions.is_dir():
        right = read_right(files, "validation")
    else:
        labels = read_arrays(PREPARED / "validation")["labels"]
        right = prediction.probabilities(model, images).argmax(axis=1) == labels
    recorded, found = files.record().metrics[ACCURACY], float(right.mean())
    if abs(recorded - found) * len(right) > max(1, len(right) / 1000) + ROUNDING:
        where = f"{files.folder / 'training.json'}: {ACCURACY}"
        reason = f"{where} is {recorded}, but the model has {found}"
        raise PipelineError(f"{reason}: run `dvc checkout --force {files.folder}`")
