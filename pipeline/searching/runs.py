"""MLflow's run of each trial, a child of the search's, which the process that searches writes."""

from typing import Any

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from ray.tune import Callback

from pipeline.searching.ranges import Scalar


class TrialRuns(Callback):
    """Logs trials as they go on, and prints a line for each that ends.

    A search that is resumed begins interrupted trials anew, in the runs that they have.
    """

    def __init__(self, experiment_id: str, parent: str, variant: str) -> None:
        self.experiment_id, self.parent, self.variant = experiment_id, parent, variant
        self.runs: dict[str, str] = {}  # the run of each trial

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin a run, or continue the trial's."""
        client = mlflow.MlflowClient()
        name, tags = f"{self.variant}-trial-{trial.trial_id}", {MLFLOW_PARENT_RUN_ID: self.parent}
        mine = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent}' and attributes.run_name = '{name}'"
        known = client.search_runs([self.experiment_id], mine)
        run = known[0] if known else client.create_run(self.experiment_id, tags=tags, run_name=name)
        self.runs[trial.trial_id] = run.info.run_id
        for key, value in ({"variant": self.variant} | trial.config).items():
            client.log_param(run.info.run_id, key, value)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        """Log an epoch, or what the training kept."""
        client, run_id = mlflow.MlflowClient(), self.runs[trial.trial_id]
        client.log_metric(run_id, "cpu_seconds", result["cpu_seconds"])
        if "kept" in result:
            client.log_metric(run_id, "validation/accuracy", result["kept"])
        else:
            client.log_metric(
                run_id, "val_accuracy", result["accuracy"], step=result["training_iteration"] - 1
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """End the run of a trial that finished, or that the search stopped."""
        result = trial.last_result
        end = f"{result['accuracy']:.4f}"
        if "kept" not in result:
            end = result.get("refused", f"{end}, stopped after epoch {result['training_iteration']}")
        print(f"{trial.trial_id}: {in_words(trial.config)}: {end}")
        mlflow.MlflowClient().set_terminated(self.runs[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """End the run of a trial that failed."""
        print(f"{trial.trial_id}: {in_words(trial.config)}: failed")
        mlflow.MlflowClient().set_terminated(self.runs[trial.trial_id], "FAILED")


def end_forgotten(parent: str) -> None:
    """End the runs of trials that began just before their search was killed, and are not known to Ray."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent).info.experiment_id
    running = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], running):
        client.set_terminated(run.info.run_id, "KILLED")


def in_words(values: dict[str, Scalar]) -> str:
    """Keys and values in a line."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )
