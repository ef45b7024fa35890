"""MLflow's run of each trial, a child of the search's."""

import time

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT as PRINTS_NO_LINKS
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial, TrialState

from pipeline.commands.search.study import Search
from pipeline.shared.selection import merit
from pipeline.support.errors import one_line
from pipeline.support.mlflow_server import FAILURES

CURVE = "val_accuracy"


class TrialRuns:
    """Logs trials while they run.

    If MLflow fails, the search continues without it, and `complete` logs at the end what is missing. A trial
    that is continued has the run that it had.
    """

    def __init__(self, parent: str, search: Search) -> None:
        PRINTS_NO_LINKS.set(True)  # it would print one for each trial
        self.parent, self.search, self.client = parent, search, mlflow.MlflowClient()
        self.experiment = self.client.get_run(parent).info.experiment_id
        mine = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
        found = self.client.search_runs([self.experiment], mine, max_results=5000)
        self.runs = {int(run.data.tags["trial"]): run.info.run_id for run in found}
        self.ended = {int(run.data.tags["trial"]) for run in found if run.info.status != "RUNNING"}
        self.failed = False

    def log(self, trial: FrozenTrial) -> None:
        """Log what a trial's run lacks, unless MLflow has failed: to try again takes half a minute."""
        if self.failed:
            return
        try:
            self._log(trial)
        except FAILURES as error:
            self.failed = True
            print(f"the trials are logged when the search ends ({one_line(error)})", flush=True)

    def complete(self, trials: list[FrozenTrial]) -> None:
        """Log what the runs of all trials lack. Raises what MLflow raises."""
        for trial in trials:
            if trial.number not in self.ended:
                self._log(trial)
        PRINTS_NO_LINKS.unset()

    def _log(self, trial: FrozenTrial) -> None:
        run_id, now = self.runs.get(trial.number) or self._begin(trial), int(time.time() * 1000)
        known = {metric.step for metric in self.client.get_metric_history(run_id, CURVE)}
        epochs = [(epoch - 1, accuracy) for epoch, accuracy in trial.intermediate_values.items()]
        metrics = [Metric(CURVE, accuracy, now, step) for step, accuracy in epochs if step not in known]
        totals = {"cpu_seconds": trial.user_attrs.get("cpu_seconds")}
        if trial.state == TrialState.COMPLETE:
            metric = self.search.metric
            totals[f"validation/{metric}"] = merit(metric, trial.value or 0)
        metrics += [Metric(key, value, now, 0) for key, value in totals.items() if value is not None]
        reason = [RunTag(key, value) for key, value in trial.user_attrs.items() if key == "reason"]
        self.client.log_batch(run_id, metrics=metrics, tags=reason)
        if trial.state.is_finished():
            self.client.set_terminated(run_id, "FAILED" if trial.state == TrialState.FAIL else "FINISHED")
            self.ended.add(trial.number)

    def _begin(self, trial: FrozenTrial) -> str:
        """Begin a trial's run with its settings. Returns its id."""
        tags = {MLFLOW_PARENT_RUN_ID: self.parent, "trial": str(trial.number)}
        name = f"{self.search.variant}-trial-{trial.number}"
        run_id: str = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        settings = {"variant": self.search.variant} | trial.params
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings.items()])
        self.runs[trial.number] = run_id
        return run_id
