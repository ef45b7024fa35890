"""What a search found: a table, figures, and the best trial as a block of params.yaml."""

import shlex
import shutil
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import yaml
from matplotlib.ticker import MaxNLocator
from ray.tune import ResultGrid

from pipeline.commands.search.ranges import Ranges, Scalar, with_values
from pipeline.commands.search.trial_runs import has_reported, last_line, reports
from pipeline.params import Params
from pipeline.shared.figures import new_figure
from pipeline.support.errors import PipelineError

FOLDER = Path("search")


def write(variant: str, params: Params, ranges: Ranges, results: ResultGrid) -> None:
    """Write, log and print what a search found. Raises PipelineError if no trial finished."""
    table = in_order(results)
    finished = table.dropna(subset="kept")
    if finished.empty:
        reasons = {last_line(error) for error in results.errors}
        reasons |= {trial.metrics["refused"] for trial in results if "refused" in (trial.metrics or {})}
        raise PipelineError(f"search: no trial of {variant} finished: {'; '.join(sorted(reasons))}")
    winner = finished.loc[[finished["kept"].idxmax()]].to_dict("records")[0]
    best = {key: winner[key] for key in ranges}
    text, accuracy, seconds = block(variant, params, best), winner["kept"], table["cpu_seconds"].sum()
    folder = FOLDER / variant
    shutil.rmtree(folder, ignore_errors=True)  # an earlier search may have drawn a figure that this one lacks
    folder.mkdir(parents=True)
    table.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    (folder / "best.yaml").write_text(text)
    draw_history(table, folder / "history.png")
    draw_importances(table, ranges, folder / "importances.png")
    mlflow.log_artifacts(str(folder))
    mlflow.set_tags({f"best.{key}": value for key, value in best.items()})
    mlflow.log_metrics({"validation/accuracy": accuracy, "cpu_seconds": seconds})
    print(f"{variant}: the best of {len(table)} trials has validation accuracy {accuracy:.4f}")
    others = f"{len(table) - len(finished)} were stopped early or failed"
    print(f"({others}; {seconds / 60:.1f} CPU minutes in all):\n")
    print(f"{text}\nor: {command(variant, best)}")


def in_order(results: ResultGrid) -> pd.DataFrame:
    """A row for each trial that trained, the first one first: its values, its last accuracy, the one that it
    kept if it finished, its epochs, its CPU seconds, and `early`, after the last epoch that all have.
    """
    reported = [trial for trial in results if has_reported(trial) and "refused" not in trial.metrics]
    reported.sort(key=lambda trial: trial.metrics_dataframe["timestamp"].iloc[0])
    # The last report of a finished trial is that of its kept weights, and of no epoch.
    epochs = [trial.metrics["training_iteration"] - ("kept" in trial.metrics) for trial in reported]
    common = min(epochs, default=0)
    rows = [
        trial.config
        | {name: trial.metrics.get(name) for name in ("accuracy", "kept", "cpu_seconds")}
        | {"trained_epochs": count, "early": reports(trial)["accuracy"].iloc[common - 1]}
        for trial, count in zip(reported, epochs, strict=True)
    ]
    return pd.DataFrame(rows, columns=None if rows else ["kept"])


def draw_history(table: pd.DataFrame, path: Path) -> None:
    """Draw the last accuracy of each trial, and the best so far of those that finished."""
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    number, stopped = table.index + 1, table["kept"].isna()
    axes.plot(number[stopped], table["accuracy"][stopped], "o", mfc="none", label="not finished")
    axes.plot(number[~stopped], table["kept"][~stopped], "o", label="finished")
    axes.step(number, table["kept"].cummax().ffill(), where="post", label="best so far")
    axes.set(xlabel="trial", ylabel="validation accuracy", title="The trials in their order")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    figure.savefig(path, dpi=150)


def draw_importances(table: pd.DataFrame, ranges: Ranges, path: Path) -> None:
    """Draw how much each key decides the accuracy after the last epoch that all trials have (fANOVA)."""
    if len(ranges) < 2 or table["early"].nunique() < 2:
        return
    study = optuna.create_study(direction="maximize")
    distributions = {key: values.distribution() for key, values in ranges.items()}
    for row in table.to_dict("records"):
        values = {key: row[key] for key in ranges}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=row["early"])
        )
    importances = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    figure = new_figure(8, 1 + 0.4 * len(ranges))
    axes = figure.add_subplot()
    axes.barh(list(importances), list(importances.values()))
    axes.invert_yaxis()
    title = f"What decides the accuracy after epoch {table['trained_epochs'].min()}"
    axes.set(xlabel="fraction of the variance that the key explains", title=title)
    figure.savefig(path, dpi=150)


def block(variant: str, params: Params, values: dict[str, Scalar]) -> str:
    """The variant with these values, as in params.yaml."""
    content = with_values(params, variant, values).model_dump(exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump({variant: content}, sort_keys=False)


def command(variant: str, values: dict[str, Scalar]) -> str:
    """DVC's experiment with these values; `++` sets a key that params.yaml has, or has not."""
    settings = [f"-S {shlex.quote(f'++variants.{variant}.{key}={value}')}" for key, value in values.items()]
    return " ".join(["dvc exp run", *settings])
