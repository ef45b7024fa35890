"""What a search found: a table, figures, and the best trial as a block of params.yaml."""

import shlex
import shutil
import warnings
from math import fsum
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import optuna
import pandas as pd
import yaml
from matplotlib import pyplot as plt
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import matplotlib as plots

from pipeline.commands.search.ranges import Scalar, with_values
from pipeline.commands.search.study import ENDED, Search
from pipeline.shared.selection import LOSSES, in_words, merit
from pipeline.support.errors import PipelineError
from pipeline.support.words import count

FOLDER = Path("search")


def write(search: Search, study: optuna.Study) -> None:
    """Write and print what a search found. Raises PipelineError if no trial finished."""
    trials = study.get_trials(deepcopy=False, states=ENDED)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not finished:
        reasons = sorted({trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs})
        raise PipelineError(f"search: no trial of {search.variant} finished: {'; '.join(reasons)}")
    best, table = study.best_trial, table_of(trials, search.metric)
    text, others = block(search, best.params), len(trials) - len(finished)
    folder = FOLDER / search.variant
    shutil.rmtree(folder, ignore_errors=True)  # an earlier search may have drawn a figure that this one lacks
    folder.mkdir(parents=True)
    table.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    (folder / "best.yaml").write_text(text)
    draw(study, table, folder, search.metric)
    measure, value = f"validation {in_words(search.metric)}", merit(search.metric, best.value or 0)
    print(f"{search.variant}: the best of {count(len(trials), 'trial')} has {measure} {value:.4f}")
    print(f"({others} were stopped early or failed; {cpu_seconds(trials) / 60:.1f} CPU minutes in all):\n")
    print(f"{text}\nor: {command(search.variant, best.params)}")


def log(search: Search, study: optuna.Study) -> None:
    """Log what a search found to its run."""
    best, value = study.best_trial, merit(search.metric, study.best_value)
    mlflow.log_artifacts(str(FOLDER / search.variant))
    mlflow.set_tags({f"best.{key}": value for key, value in best.params.items()})
    mlflow.log_metrics({f"validation/{search.metric}": value, "cpu_seconds": cpu_seconds(study.trials)})


def cpu_seconds(trials: list[FrozenTrial]) -> float:
    """The CPU seconds of all trainings."""
    return fsum(trial.user_attrs.get("cpu_seconds", 0.0) for trial in trials)


def table_of(trials: list[FrozenTrial], metric: str) -> pd.DataFrame:
    """A row for each trial that trained: its values, its last accuracy, its CPU seconds and epochs.

    `kept` is the metric of the weights that it kept, if it finished, in the mean over seeds, and `early` the
    accuracy after the last epoch that all have.
    """
    trained = [(trial, trial.intermediate_values) for trial in trials if trial.intermediate_values]
    common = min(max(curve) for _, curve in trained)
    rows = []
    for trial, curve in trained:
        last, value = max(curve), trial.value if trial.state == TrialState.COMPLETE else None
        kept = None if value is None else merit(metric, value)
        accuracy = kept if kept is not None and metric == "accuracy" else curve[last]
        row: dict[str, Any] = trial.params | {"accuracy": accuracy, "kept": kept}
        row |= {"cpu_seconds": cpu_seconds([trial]), "trained_epochs": last}
        rows.append(row | {"early": curve[max((epoch for epoch in curve if epoch <= common), default=last)]})
    return pd.DataFrame(rows)


@mpl.rc_context()  # Optuna changes the style of all figures
def draw(study: optuna.Study, table: pd.DataFrame, folder: Path, metric: str) -> None:
    """Draw the best value so far, the epochs of all trials, and how much each key decides (fANOVA).

    The last is for the accuracy after the last epoch that all trials have, since most are stopped early.
    """
    warnings.simplefilter("ignore", ExperimentalWarning)
    mpl.use("agg")  # Optuna draws with pyplot
    name = f"{'minus ' if metric in LOSSES else ''}validation {in_words(metric)}"
    save(folder / "history.png", plots.plot_optimization_history(study, target_name=name))
    save(folder / "epochs.png", plots.plot_intermediate_values(study))
    if len(study.best_params) < 2 or table["early"].nunique() < 2:
        return
    early = optuna.create_study(direction="maximize")
    for row in table.to_dict("records"):
        values = {key: row[key] for key in study.best_params}
        distributions = study.best_trial.distributions
        early.add_trial(create_trial(params=values, distributions=distributions, value=row["early"]))
    name = f"accuracy after epoch {table['trained_epochs'].min()}"
    evaluator = FanovaImportanceEvaluator(seed=0)
    importances = plots.plot_param_importances(early, evaluator=evaluator, target_name=name)
    save(folder / "importances.png", importances)


def save(path: Path, plotted: Any) -> None:
    """Save a figure of Optuna's."""
    plotted.figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(plotted.figure)


def block(search: Search, values: dict[str, Scalar]) -> str:
    """The variant with these values, as in params.yaml."""
    content = with_values(search.params, search.variant, values)
    shown = content.model_dump(exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump({search.variant: shown}, sort_keys=False)


def command(variant: str, values: dict[str, Scalar]) -> str:
    """DVC's experiment with these values; `++` sets a key that params.yaml has, or has not."""
    settings = [f"-S {shlex.quote(f'++variants.{variant}.{key}={value}')}" for key, value in values.items()]
    return " ".join(["dvc exp run", *settings])
