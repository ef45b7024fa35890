"""MLflow runs, one for each trained model.

DVC decides what is trained and owns the files; a run records what happened. Tags connect the two, so no
file holds a run id.
"""

import os
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import mlflow
import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Experiment, LifecycleStage, LoggedModel, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.support import mlflow_server, mlflow_store
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError
from pipeline.support.locks import is_free
from pipeline.support.mlflow_locations import has_files
from pipeline.support.origin import origin, workspace

SYSTEM_METRICS_SECONDS = 5
NOTE = """\
Each run is a training, of a variant with a seed. The run `report` holds the report.
A name has in brackets DVC's experiment, if there is one, `restored` if the run was logged from DVC's files
and no training began here, and `superseded` if its folder has a newer model of this variant and seed.

`accuracy`, `loss`, `val_accuracy` and `val_loss` are curves. `validation/accuracy`, `test/accuracy` and the
like score the model that was kept. Models are chosen by `validation/accuracy`."""


@contextmanager
def training_run(
    experiment: str,
    name: str,
    tags: dict[str, str],
    resumed: bool = False,
    made_by: dict[str, str] | None = None,
    completed_by: str = mlflow_server.SYNC,
) -> Iterator[str]:
    """A run, with system metrics, that is FINISHED at the end or FAILED on an exception.

    If this folder began a run with the same tags and did not end it, that run continues; with `resumed`
    so does a run that it ended. `made_by` is the `origin` of the folder that asked for the run, by default
    this one. `completed_by` is the command that completes the run if MLflow fails. Under `mlflow run` the
    project's own run becomes the parent: every stage inherits its id, and would otherwise write into it.
    """
    mlflow_server.FAILED.discard(name)
    parent = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    set_experiment(experiment)
    made_by = made_by or origin()
    tags = tags | {"workspace": made_by["workspace"]}
    begun = find_run(experiment, tags, "" if resumed else "attributes.status != 'FINISHED'")
    run_id = begun.info.run_id if begun else None
    run = mlflow.start_run(
        run_id,
        run_name=called(name, begun.data.tags if begun else made_by),
        parent_run_id=None if run_id else parent,
        tags=None if run_id else tags | made_by,
        log_system_metrics=True,
    )
    status = "FAILED"
    try:
        yield run.info.run_id
        status = "FINISHED"
    finally:
        with mlflow_server.best_effort(name, completed_by):
            mlflow.end_run(status)
        if parent is not None:
            os.environ["MLFLOW_RUN_ID"] = parent


def called(name: str, tags: Mapping[str, str]) -> str:
    """The name of a run, with what distinguishes it from others of this name in brackets, by its tags."""
    notes = [
        tags.get("dvc_experiment"),
        *(word for word in ("restored", "superseded", "unused") if tags.get(word)),
    ]
    given = ", ".join(filter(None, notes))
    return f"{name} ({given})" if given else name


def note(run: Run, name: str, **tags: str) -> None:
    """Set tags of a run, and call it by them; an empty one is deleted."""
    client, changed = mlflow.MlflowClient(), {k: v for k, v in tags.items() if run.data.tags.get(k, "") != v}
    for key, value in changed.items():
        client.set_tag(run.info.run_id, key, value) if value else client.delete_tag(run.info.run_id, key)
    if changed:
        client.update_run(run.info.run_id, name=called(name, run.data.tags | tags))


def supersede(run: Run, name: str) -> None:
    """Note that the other finished runs of this folder of a run's variant and seed are not its model's."""
    mine = {key: run.data.tags[key] for key in ("variant", "seed")} | {"workspace": workspace()}
    query = " and ".join(["attributes.status = 'FINISHED'", *carrying(mine)])
    for found in mlflow.MlflowClient().search_runs([run.info.experiment_id], query):
        note(found, name, superseded="" if found.info.run_id == run.info.run_id else "true")


def carrying(tags: Mapping[str, str]) -> Iterator[str]:
    """MLflow's conditions for runs that carry all of these tags."""
    return (f"tags.`{key}` = '{value}'" for key, value in tags.items())


def experiment_called(name: str) -> Experiment | None:
    """The experiment of this name, if there is one. Raises PipelineError if it was deleted.

    Its name is taken then: MLflow refuses new runs in it, and another experiment of that name.
    """
    found = mlflow.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise PipelineError(f"MLflow: experiment {name!r} was deleted: run `{restore}`, or change data.name")
    return found


def set_experiment(name: str) -> Experiment:
    """Make an experiment the active one, and create and describe it if it is new.

    Raises PipelineError if it was deleted.
    """
    experiment_called(name)
    if root := mlflow_store.checkout():
        with suppress(MlflowException):  # it exists already
            mlflow.create_experiment(name, (root / "mlruns").as_uri())
    active = mlflow.set_experiment(name)
    # If two processes create it at once, MLflow (3.17) leaves the loser's former experiment active.
    mlflow.set_experiment(experiment_id=active.experiment_id)
    if MLFLOW_RUN_NOTE not in active.tags:  # an experiment's description has the same tag
        with suppress(MlflowException):  # another process sets it at the same moment
            mlflow.set_experiment_tag(MLFLOW_RUN_NOTE, NOTE)
    return active


def end_killed(experiment: str) -> list[str]:
    """End the runs that this folder began and no process continues, as KILLED. Returns their names."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    running = f"attributes.status = 'RUNNING' and tags.workspace = '{workspace()}'"
    runs = client.search_runs([found.experiment_id], running)
    dead = [run for run in runs if is_free(f"train-{str(run.info.run_name).partition(' ')[0]}")]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return [str(run.info.run_name) for run in dead]


def find_run(
    experiment: str, tags: dict[str, str], condition: str = "attributes.status = 'FINISHED'"
) -> Run | None:
    """The newest run of an experiment that carries all of these tags and meets the condition."""
    found = mlflow.MlflowClient().get_experiment_by_name(experiment)
    if found is None:
        return None
    query = " and ".join([*filter(None, [condition]), *carrying(tags)])
    newest = ["attributes.start_time DESC"]
    runs = mlflow.MlflowClient().search_runs([found.experiment_id], query, order_by=newest, max_results=1)
    return next(iter(runs), None)


def logged_model(run_id: str, name: str) -> LoggedModel | None:
    """The model of this name that a run logged completely, if there is one."""
    found = mlflow.search_logged_models(
        experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' and name = '{name}'",
        output_format="list",
    )
    complete = (model for model in found if model.status == "READY" and has_files(model.model_uri))
    return next(complete, None)


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


def time_after(run: Run, metrics: Iterable[str]) -> int:
    """Now, or after all values that a run has of these metrics, in milliseconds.

    MLflow shows the latest value, which after a clock was set back may be an old one.
    """
    client, known = mlflow.MlflowClient(), run.data.metrics
    histories = [client.get_metric_history(run.info.run_id, key) for key in metrics if key in known]
    return max([int(time.time() * 1000), *(point.timestamp + 1 for values in histories for point in values)])


def dataset(facts: dict[str, Any], part: str, images: np.ndarray) -> NumpyDataset:
    """The images of a part of the split, as MLflow names the input of a run or of a metric."""
    source = CodeDatasetSource({"mlflow.source.name": f"data/prepared ({part})"})
    digest = digest_of([facts["split_digest"], part, len(images)])[:36]
    return NumpyDataset(images, source, name=f"{facts['name']}-{part}", digest=digest)
