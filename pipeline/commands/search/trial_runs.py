"""MLflow's run of each trial, a child of the search's, which the process that searches writes."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from ray.tune import Callback, Result, ResultGrid

from pipeline.commands.search.ranges import Scalar
from pipeline.support.errors import in_a_line, one_line
from pipeline.support.mlflow_runs import FAILURES, log_history


class TrialRuns(Callback):
    """Logs trials as they go on, and prints a line for each that ends.

    If MLflow fails, the search continues without it, and `complete` logs at the end what is missing. A
    search that is resumed begins interrupted trials anew, in the runs that they have.
    """

    def __init__(self, parent: str, variant: str) -> None:
        self.parent, self.variant = parent, variant
        self.runs: dict[str, str] = {}  # the run of each trial
        self.failed = False

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        """Begin a run, or continue the trial's."""
        self._log(self._begin, trial)

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Log an epoch, or what the training kept."""
        self._log(log_result, self.runs.get(trial.trial_id), result)

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        """End the run of a trial that finished, or that the search stopped."""
        result = trial.last_result
        outcome = f"{result['accuracy']:.4f}"
        if "kept" not in result:
            stopped = f"{outcome}, stopped after epoch {result['training_iteration']}"
            outcome = result.get("refused", stopped)
        print(f"{trial.trial_id}: {in_words(trial.config)}: {outcome}")
        self._log(end_run, self.runs.get(trial.trial_id), "FINISHED")

    def on_trial_recover(self, trial: Any, **_: Any) -> None:
        """Print that a trial begins anew, since its worker died."""
        print(f"{trial.trial_id}: {in_words(trial.config)}: its worker died; it begins anew")

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        """End the run of a trial that failed."""
        print(f"{trial.trial_id}: {in_words(trial.config)}: failed: {last_line(trial.get_error())}")
        self._log(end_run, self.runs.get(trial.trial_id), "FAILED")

    def _begin(self, trial: Any) -> None:
        known = children(self.parent, f" and tags.trial = '{trial.trial_id}'").get(trial.trial_id)
        run_id = (
            known.info.run_id if known else begin_run(self.parent, self.variant, trial.trial_id, trial.config)
        )
        self.runs[trial.trial_id] = run_id

    def _log(self, log: Callable[..., None], *arguments: Any) -> None:
        """Log something, unless MLflow has failed: trying again holds all trials for half a minute."""
        if self.failed:
            return
        try:
            log(*arguments)
        except FAILURES as error:
            self.failed = True
            print(f"the trials are logged when the search ends ({one_line(error)})", flush=True)


def complete(parent: str, variant: str, results: ResultGrid) -> None:
    """Log what the runs of a search's trials lack, and end those that did not end."""
    known = children(parent)
    for trial in filter(has_reported, results):
        trial_id = trial.metrics["trial_id"]
        run = known.pop(trial_id, None)
        if run and run.info.status == "FINISHED":
            continue
        run_id = run.info.run_id if run else begin_run(parent, variant, trial_id, trial.config or {})
        log_all(run_id, trial)
    forgotten = [run for run in known.values() if run.info.status == "RUNNING"]
    for run in forgotten:  # of trials that never reported, or that began just before the search was killed
        end_run(run.info.run_id, "KILLED")


@cache
def experiment_of(parent: str) -> str:
    """The id of the experiment of a search's run."""
    return str(mlflow.get_run(parent).info.experiment_id)


def children(parent: str, condition: str = "") -> dict[str, Run]:
    """The runs of a search's trials that meet a condition, by the trials' ids."""
    mine = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'{condition}"
    found = mlflow.MlflowClient().search_runs([experiment_of(parent)], mine, max_results=5000)
    return {run.data.tags["trial"]: run for run in found}


def has_reported(trial: Result) -> bool:
    """Whether a trial finished an epoch, or was refused."""
    return "training_iteration" in (trial.metrics or {})


def reports(trial: Result) -> pd.DataFrame:
    """What a trial reported, a row each time; if it began anew, only what it reported since."""
    last = trial.metrics_dataframe.drop_duplicates("training_iteration", keep="last")
    last = last[last["training_iteration"] <= trial.metrics["training_iteration"]]
    return last.sort_values("training_iteration")


def last_line(error: object) -> str:
    """The last line of a traceback, which says what happened."""
    return in_a_line(str(error).strip().rpartition("\n")[2])


def begin_run(parent: str, variant: str, trial_id: str, values: dict[str, Scalar]) -> str:
    """Begin a trial's run with its values. Returns its id."""
    client, tags = mlflow.MlflowClient(), {MLFLOW_PARENT_RUN_ID: parent, "trial": trial_id}
    run = client.create_run(experiment_of(parent), tags=tags, run_name=f"{variant}-trial-{trial_id}")
    for key, value in ({"variant": variant} | values).items():
        client.log_param(run.info.run_id, key, value)
    return str(run.info.run_id)


def log_result(run_id: str, result: dict[str, Any]) -> None:
    """Log what a trial reported: an epoch, or what the training kept."""
    if "kept" not in result:
        step = result["training_iteration"] - 1
        mlflow.MlflowClient().log_metric(run_id, "val_accuracy", result["accuracy"], step=step)
    log_totals(run_id, result)


def log_totals(run_id: str, result: dict[str, Any]) -> None:
    """Log the CPU seconds of a trial so far, and what the training kept if it has finished."""
    client = mlflow.MlflowClient()
    client.log_metric(run_id, "cpu_seconds", result["cpu_seconds"])
    if "kept" in result:
        client.log_metric(run_id, "validation/accuracy", result["kept"])


def log_all(run_id: str, trial: Result) -> None:
    """Log the epochs that a trial's run lacks and its last report, and end the run."""
    accuracies = reports(trial)["accuracy"].tolist()
    epochs = len(accuracies) - ("kept" in trial.metrics)
    log_history(run_id, {"val_accuracy": accuracies[:epochs]})
    log_totals(run_id, trial.metrics)
    end_run(run_id, "FAILED" if trial.error else "FINISHED")


def end_run(run_id: str, status: str) -> None:
    """End a trial's run, without the links that MLflow prints of each run on a server."""
    with redirect_stdout(io.StringIO()):
        mlflow.MlflowClient().set_terminated(run_id, status)


def in_words(values: dict[str, Scalar]) -> str:
    """Keys and values in a line."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )
