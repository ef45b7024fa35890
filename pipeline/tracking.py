"""MLflow runs: one for each trained model, found again by what made it.

DVC decides what is trained and owns the files; a run records what happened. They are tied by tags, so
no run id stands in any file.
"""

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Run

SYSTEM_METRICS_SECONDS = 5


@contextmanager
def training_run(experiment: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """A new run, with system metrics, that is FINISHED at the end or FAILED on an exception.

    Under `mlflow run` the project's own run becomes its parent: every stage inherits that run's id,
    and would otherwise write into it.
    """
    parent = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    made = mlflow.set_experiment(experiment)
    # Where two processes make it at once, MLflow (3.17) leaves the loser's former experiment active.
    mlflow.set_experiment(experiment_id=made.experiment_id)
    tags = tags | {"git_commit": git_commit()}
    with mlflow.start_run(run_name=name, parent_run_id=parent, tags=tags, log_system_metrics=True) as run:
        yield run.info.run_id
        mlflow.flush_async_logging()


def find_run(experiment: str, tags: dict[str, str]) -> Run | None:
    """The newest finished run of an experiment that carries all of these tags."""
    found = mlflow.MlflowClient().get_experiment_by_name(experiment)
    if found is None:
        return None
    conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    runs = mlflow.MlflowClient().search_runs(
        [found.experiment_id],
        filter_string=" and ".join(["attributes.status = 'FINISHED'", *conditions]),
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return next(iter(runs), None)


def git_commit() -> str:
    """The commit that is checked out, with "-dirty" where files differ from it; "none" without git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() if described.returncode == 0 else "none"


def read_training(folder: Path) -> dict[str, Any]:
    """The record of the training that made models/VARIANT-SEED: its tags, params and metrics."""
    return json.loads((folder / "training.json").read_text())


def log_dataset(name: str, context: str, images: np.ndarray, digest: str) -> None:
    """Name the images that a run used as its input, by our own digest of the split."""
    source = CodeDatasetSource({"mlflow.source.name": f"data/prepared ({context})"})
    dataset = NumpyDataset(images, source, name=f"{name}-{context}", digest=digest[:36])
    mlflow.log_input(dataset, context)
