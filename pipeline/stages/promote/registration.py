"""A candidate as a version of a registered model: registers it, and finds it again by its tags and bytes."""

import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from pipeline.stages.promote import packaging
from pipeline.stages.promote.gate import Candidate
from pipeline.support import mlflow_registry
from pipeline.support.digests import file_digest
from pipeline.support.mlflow_locations import has_files
from pipeline.support.mlflow_outputs import copy_of
from pipeline.support.model_files import AFTER_TRAINING


def register(candidate: Candidate) -> str:
    """Log the model, wrapped for serving, to its run, and register it. Returns the new version's number.

    A version carries its identity from the start, so one that was registered before a crash is found again.
    """
    client, name = mlflow.MlflowClient(), candidate.registered_name
    assert candidate.run_id is not None  # the gate's caller made sure
    run = client.get_run(candidate.run_id)
    commit = run.data.tags.get("git_commit", "none")
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    with copy_of(candidate.model) as model:
        logged = Model.log(
            artifact_path=None,
            name=f"{candidate.model_name}-served",
            flavor=ServedModel,
            run_id=candidate.run_id,  # which keeps its status and its end
            served=packaging.described(
                Path(model), candidate.classes, candidate.images[0], candidate.serving
            ),
            training_ids=candidate.training_ids,
            metadata={"classes": candidate.classes, "git_commit": commit} | candidate.tags,
            validate_serving_input=False,
            step=AFTER_TRAINING,
        )
    with contextlib.suppress(MlflowException):  # it exists already
        client.create_registered_model(name, description=mlflow_registry.NOTE)
    version = client.create_model_version(
        name, logged.model_uri, candidate.run_id, tags=candidate.identity, model_id=logged.model_id
    )
    for model_id in filter(None, (candidate.model_id, logged.model_id)):
        link(model_id, name, str(version.version))
    return str(version.version)


def link(model_id: str, name: str, version: str) -> None:
    """Let the page of a logged model name a version of the registered model."""
    client, linked = mlflow.MlflowClient(), {"name": name, "version": version}
    known = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    others = [one for one in known if one | {"version": str(one["version"])} != linked]
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*others, linked])})


class ServedModel:
    """MLflow's pyfunc flavour, without two things that `Model.log` would do.

    It need not try the example, since `serving_check.check` does more. And the served model's configuration
    is not a parameter of the training: `Model.log` would log it as such if it saw `model_config`.
    """

    @staticmethod
    def save_model(
        path: str,
        served: dict[str, Any],
        training_ids: np.ndarray,
        validate_serving_input: bool,  # noqa: ARG004
        **arguments: Any,
    ) -> None:
        """Save a model, which the arguments `served` describe, with the ids of its training images."""
        mlflow.pyfunc.save_model(path, **served, **arguments)
        np.save(Path(path) / packaging.TRAINING_IDS, training_ids, allow_pickle=False)


def is_version_of(version: ModelVersion, candidate: Candidate) -> bool:
    """Whether a version is this candidate, served in this way: by its tags, and by the bytes of its files."""
    served_alike = candidate.identity.items() <= version.tags.items()
    return served_alike and _has(version, packaging.files(candidate.digest))


def is_intact(version: ModelVersion) -> bool:
    """Whether a version's model is there, and no other: MLflow's pages and `mlflow gc` delete files."""
    digest = version.tags.get(mlflow_registry.DIGEST)
    return digest is None or _has(
        version, {mlflow_registry.MODEL: digest}
    )  # without one, it is not the pipeline's


def _has(version: ModelVersion, files: dict[str, str]) -> bool:
    """Whether a version can be found and has these files, by their digests."""
    uri = f"models:/{version.name}/{version.version}"
    if not has_files(uri):  # those of a model that was deleted in MLflow's pages stay until `mlflow gc`
        return False
    with TemporaryDirectory() as folder:
        try:
            mlflow.artifacts.download_artifacts(uri, dst_path=folder)
            return all(file_digest(Path(folder, path)) == digest for path, digest in files.items())
        except (MlflowException, OSError):  # without one of these files, or without any
            return False
