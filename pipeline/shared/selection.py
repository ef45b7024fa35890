"""Chooses the best model from the files of `metrics/`, for `promote`."""

from typing import Any

import pandas as pd

from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import METRICS


def read_scores(models: list[ModelFiles]) -> pd.DataFrame:
    """A row for each model: variant, seed, validation_accuracy, test_accuracy.

    Models that diverged have no row. Raises PipelineError if all did.
    """
    rows = []
    for files in models:
        if files.divergence() is None:
            scores = files.metrics()
            accuracies = {f"{part}_accuracy": scores[part]["accuracy"] for part in ("validation", "test")}
            rows.append({"variant": files.variant, "seed": files.seed} | accuracies)
    if not rows:
        raise PipelineError(f"{METRICS}: every training diverged, so there is no champion to choose")
    return pd.DataFrame(rows)


def choose(scores: pd.DataFrame) -> dict[str, Any]:
    """The champion: the variant with the best mean validation accuracy over its seeds, and its best seed.

    Ties go to the first in the order of params.yaml.
    """
    means = scores.groupby("variant", sort=False)["validation_accuracy"].mean()
    seeds = scores[scores["variant"] == means.idxmax()]
    best = seeds.sort_values("validation_accuracy", ascending=False, kind="stable").iloc[0]
    return {
        "variant": str(best["variant"]),
        "seed": int(best["seed"]),
        "validation_accuracy": float(best["validation_accuracy"]),
        "mean_validation_accuracy": float(means.max()),
        "seeds": len(seeds),
        "test_accuracy": float(best["test_accuracy"]),
        "runner_up": runner_up(means),
    }


def runner_up(means: pd.Series) -> dict[str, Any] | None:
    """The second-best variant and its mean validation accuracy; None if there is only one."""
    others = means.drop(means.idxmax())
    if others.empty:
        return None
    return {"variant": str(others.idxmax()), "mean_validation_accuracy": float(others.max())}
