"""What a search found: a table, figures, and the best trial as a block of params.yaml."""

import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mlflow
import optuna
import pandas as pd
import yaml
from optuna.visualization import matplotlib as plots

from pipeline.params import Params
from pipeline.searching.ranges import Ranges, Scalar, with_values
from pipeline.shared.errors import PipelineError

FOLDER = Path("search")


def write(variant: str, params: Params, ranges: Ranges, results: Any) -> None:
    """Write, log and print what a search found. Raises PipelineError if no trial finished."""
    folder = FOLDER / variant
    folder.mkdir(parents=True, exist_ok=True)
    table = as_table(results, list(ranges))
    finished = table.dropna(subset="kept").sort_values("kept", ascending=False)
    if finished.empty:
        raise PipelineError(f"search: no trial of {variant} finished")
    table.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    draw(finished, ranges, folder)
    best = {key: finished.iloc[0][key] for key in ranges}
    best = {key: value.item() if hasattr(value, "item") else value for key, value in best.items()}
    text = block(variant, params, best)
    (folder / "best.yaml").write_text(text)
    mlflow.log_artifacts(str(folder))
    mlflow.log_params(best)
    minutes = table["cpu_seconds"].sum() / 60
    mlflow.log_metrics({"validation/accuracy": finished.iloc[0]["kept"], "cpu_seconds": minutes * 60})
    stopped = len(table) - len(finished)
    print(
        f"{variant}: the best of {len(table)} trials has validation accuracy {finished.iloc[0]['kept']:.4f}"
    )
    print(f"({stopped} were stopped early; {minutes:.1f} CPU minutes in all). As a block of params.yaml:\n")
    print(text)
    print(f"or: {command(variant, best)}")


def as_table(results: Any, keys: list[str]) -> pd.DataFrame:
    """A row for each trial: its values, its last accuracy, what it kept if it finished, its CPU seconds."""
    rows = [
        {key: result.config[key] for key in keys}
        | {
            name: result.metrics.get(name)
            for name in ("accuracy", "kept", "training_iteration", "cpu_seconds")
        }
        for result in results
        if result.metrics and "accuracy" in result.metrics
    ]
    return pd.DataFrame(rows).rename(columns={"training_iteration": "epochs"})


def draw(finished: pd.DataFrame, ranges: Ranges, folder: Path) -> None:
    """Draw how the best accuracy rose, and how much each key decides; the second needs several trials."""
    study = optuna.create_study(direction="maximize")
    distributions = {key: values.distribution() for key, values in ranges.items()}
    for _, row in finished.sort_index().iterrows():
        values = {key: row[key] for key in ranges}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=float(row["kept"]))
        )
    plots.plot_optimization_history(study)
    save(folder / "history.png")
    if len(finished) > 3 and len(ranges) > 1:
        plots.plot_param_importances(study)
        save(folder / "importances.png")


def save(path: Path) -> None:
    """Save the figure that Optuna drew last, and close it."""
    plt.tight_layout()
    plt.savefig(path, dpi=150)
    plt.close()


def block(variant: str, params: Params, values: dict[str, Scalar]) -> str:
    """The variant with these values, as in params.yaml."""
    content = with_values(params, variant, values).model_dump(exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump({variant: content}, sort_keys=False)


def command(variant: str, values: dict[str, Scalar]) -> str:
    """DVC's experiment with these values."""
    settings = [f"-S {shlex.quote(f'variants.{variant}.{key}={value}')}" for key, value in values.items()]
    return " ".join(["dvc exp run", *settings])
