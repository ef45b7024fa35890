"""What a search found: a table, figures, and the best trial as a block of params.yaml."""

import shlex
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import optuna
import pandas as pd
import yaml
from optuna.visualization import matplotlib as plots
from ray.tune import Result, ResultGrid

from pipeline.params import Params
from pipeline.searching.ranges import Ranges, Scalar, with_values
from pipeline.shared.errors import PipelineError, in_a_line

FOLDER = Path("search")
COLUMNS = ("accuracy", "kept", "training_iteration", "cpu_seconds")


def write(variant: str, params: Params, ranges: Ranges, results: ResultGrid) -> None:
    """Write, log and print what a search found. Raises PipelineError if no trial finished."""
    trials = [trial for trial in results if "accuracy" in (trial.metrics or {})]
    finished = [trial for trial in trials if "kept" in trial.metrics]
    if not finished:
        reasons = {in_a_line(str(error).strip().rpartition("\n")[2]) for error in results.errors}
        raise PipelineError(f"search: no trial of {variant} finished: {'; '.join(sorted(reasons))}")
    best = max(finished, key=lambda trial: trial.metrics["kept"])
    table = pd.DataFrame(
        [trial.config | {name: trial.metrics.get(name) for name in COLUMNS} for trial in trials]
    )
    folder = FOLDER / variant
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    text = block(variant, params, best.config)
    (folder / "best.yaml").write_text(text)
    draw(finished, ranges, folder)
    mlflow.log_artifacts(str(folder))
    mlflow.log_params(best.config)
    seconds = table["cpu_seconds"].sum()
    mlflow.log_metrics({"validation/accuracy": best.metrics["kept"], "cpu_seconds": seconds})
    print(f"{variant}: the best of {len(trials)} trials has validation accuracy {best.metrics['kept']:.4f}")
    print(f"({len(trials) - len(finished)} were stopped early; {seconds / 60:.1f} CPU minutes in all):\n")
    print(f"{text}\nor: {command(variant, best.config)}")


def draw(finished: list[Result], ranges: Ranges, folder: Path) -> None:
    """Draw how the best accuracy rose, and how much each key decides, which needs several trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(direction="maximize")
    distributions = {key: values.distribution() for key, values in ranges.items()}
    for trial in finished:
        value = trial.metrics["kept"]
        study.add_trial(
            optuna.trial.create_trial(params=trial.config, distributions=distributions, value=value)
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
