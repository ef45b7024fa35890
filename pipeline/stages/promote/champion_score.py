"""Scores the champion on a candidate's validation images by its metric, if it was trained on none of them.

Images that stopped the champion's training, or by which it was chosen, may be among them: they favour it no
more than they favour the candidate, which was chosen by all of them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipeline.shared.checked_scores import measured_by
from pipeline.stages.promote import packaging
from pipeline.stages.promote.gate import Candidate, IncomparableError, Standing
from pipeline.support import mlflow_registry
from pipeline.support.digests import digest_of, file_digest


def scored(champion: ModelVersion, standing: Standing, candidate: Candidate) -> Standing:
    """The champion with its score on the candidate's validation images. Raises IncomparableError."""
    same_images = standing.split_digest == candidate.tags["split_digest"]
    if standing.training_ids is None and not same_images:
        raise IncomparableError("its version does not name its training images")
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            mlflow.artifacts.download_artifacts(f"models:/{champion.name}/{champion.version}", dst_path=name)
            check_answers_alike(folder, candidate)
            if not same_images:
                trained = training_ids(folder, str(standing.training_ids))
                check_unseen(trained, candidate.validation["ids"])
            if file_digest(folder / mlflow_registry.MODEL) != standing.model_digest:
                raise IncomparableError("its model is damaged")
        except (MlflowException, OSError) as error:
            raise IncomparableError("its files are not intact") from error
        score = score_of(folder / mlflow_registry.MODEL, candidate)
    return standing.model_copy(update={"validation_score": score, "seeds": 1})


def check_answers_alike(folder: Path, candidate: Candidate) -> None:
    """Raise IncomparableError unless a version has the candidate's classes and size and fit of images."""
    served = Model.load(folder).flavors["python_function"]["config"]
    if served["classes"] != candidate.classes:
        raise IncomparableError("it has other classes")
    taken = f"{served['image_size']} pixels ({served.get('fit', 'crop')})"
    given = f"{len(candidate.images[0])} pixels ({candidate.serving.fit})"
    if taken != given:
        raise IncomparableError(f"it takes images of {taken}, and these have {given}")


def training_ids(folder: Path, digest: str) -> np.ndarray:
    """The ids of a version's training images, uint64 (n,). Raises IncomparableError if they are others."""
    try:
        ids: np.ndarray = np.load(folder / packaging.TRAINING_IDS, allow_pickle=False)
    except ValueError as error:
        raise IncomparableError("the list of its training images is damaged") from error
    if digest_of(ids.tolist()) != digest:
        raise IncomparableError("the list of its training images is damaged")
    return ids


def check_unseen(trained: np.ndarray, validation: np.ndarray) -> None:
    """Raise IncomparableError if there are training images, by their ids, among the validation images."""
    if seen := int(np.isin(validation, trained).sum()):
        raise IncomparableError(f"{seen:,} of {len(validation):,} were among its training images")


def score_of(model: Path, candidate: Candidate) -> float:
    """The value of the candidate's metric that a Keras file has on its validation images."""
    from pipeline.core import keras_file, prediction  # TensorFlow, which other promotions do not need

    validation = candidate.validation
    probabilities = prediction.probabilities(keras_file.load(model), validation["images"])
    return measured_by(candidate.metric)(validation["labels"], probabilities)[candidate.metric]
