"""MLflow's run of each trial, a child of the search's."""

import time
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT as PRINTS_NO_LINKS
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial, TrialState

from pipeline.commands.search.ranges import Scalar
from pipeline.support.errors import one_line
from pipeline.support.mlflow_runs import FAILURES

CURVE = "val_accuracy"


class TrialRuns:
    """Logs trials while they run.

    If MLflow fails, the search continues without it, and `complete` logs at the end what is missing. A trial
    that is continued has the run that it had.
    """

    def __init__(self, parent: str, variant: str) -> None:
        PRINTS_NO_LINKS.set(True)  # it would print one for each trial
        self.parent, self.variant = parent, variant
        self.client = mlflow.MlflowClient()
        self.experiment = self.client.get_run(parent).info.experiment_id
        mine = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
        found = self.client.search_runs([self.experiment], mine, max_results=5000)
        self.runs = {int(run.data.tags["trial"]): run.info.run_id for run in found}
        self.complete_ones = {int(r.data.tags["trial"]) for r in found if r.info.status != "RUNNING"}
        self.failed = False

    def begin(self, number: int, values: dict[str, Scalar]) -> None:
        """Begin a trial's run with its settings."""
        self._try(self._begin, number, values)

    def log_epoch(self, number: int, epoch: int, accuracy: float) -> None:
        """Log the accuracy after an epoch, counted from 1."""
        self._try(lambda: self.client.log_metric(self.runs[number], CURVE, accuracy, step=epoch - 1))

    def end(self, trial: FrozenTrial) -> None:
        """End the run of a trial."""
        self._try(self._end, trial)

    def complete(self, trials: list[FrozenTrial]) -> None:
        """Begin and end the runs of all trials that lack them. Raises what MLflow raises."""
        for trial in trials:
            if trial.number not in self.complete_ones:
                self._begin(trial.number, trial.params)
                self._end(trial)
        PRINTS_NO_LINKS.unset()

    def _begin(self, number: int, values: dict[str, Scalar]) -> None:
        if number in self.runs:
            return
        tags = {MLFLOW_PARENT_RUN_ID: self.parent, "trial": str(number)}
        run = self.client.create_run(self.experiment, tags=tags, run_name=f"{self.variant}-trial-{number}")
        self.runs[number] = run.info.run_id
        params = {"variant": self.variant} | values
        self.client.log_batch(run.info.run_id, params=[Param(key, str(v)) for key, v in params.items()])

    def _end(self, trial: FrozenTrial) -> None:
        """Log the epochs that a trial's run lacks and the trial's results, and end the run."""
        run_id, now = self.runs[trial.number], int(time.time() * 1000)
        known = {metric.step for metric in self.client.get_metric_history(run_id, CURVE)}
        epochs = [(epoch - 1, accuracy) for epoch, accuracy in trial.intermediate_values.items()]
        metrics = [Metric(CURVE, accuracy, now, step) for step, accuracy in epochs if step not in known]
        metrics.append(Metric("cpu_seconds", trial.user_attrs.get("cpu_seconds", 0.0), now, 0))
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            metrics.append(Metric("validation/accuracy", trial.value, now, 0))
        reason = [RunTag(key, trial.user_attrs[key]) for key in ("reason",) if key in trial.user_attrs]
        self.client.log_batch(run_id, metrics=metrics, tags=reason)
        self.client.set_terminated(run_id, "FAILED" if trial.state == TrialState.FAIL else "FINISHED")
        self.complete_ones.add(trial.number)

    def _try(self, log: Callable[..., object], *arguments: Any) -> None:
        """Log something, unless MLflow has failed: trying again would hold all trials for half a minute."""
        if self.failed:
            return
        try:
            log(*arguments)
        except FAILURES as error:
            self.failed = True
            print(f"the trials are logged when the search ends ({one_line(error)})", flush=True)
