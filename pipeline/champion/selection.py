"""Which model is best: the decision that `pipeline.promote` writes, from the files of `metrics/` alone."""

import json
from typing import Any

import pandas as pd

from pipeline.data.arrays import file_digest
from pipeline.errors import PipelineError
from pipeline.paths import METRICS, MODELS


def read_scores(trained: list[tuple[str, int]]) -> pd.DataFrame:
    """A row for each of these (variant, seed): variant, seed, validation_accuracy, test_accuracy.

    What diverged has no row; PipelineError where nothing is left. Metrics of variants that params.yaml
    no longer names stay on disk; they are not read.
    """
    rows = []
    for variant, seed in trained:
        if divergence(f"{variant}-{seed}") is None:
            scores = read_metrics(f"{variant}-{seed}")
            accuracies = {f"{part}_accuracy": scores[part]["accuracy"] for part in ("validation", "test")}
            rows.append({"variant": variant, "seed": seed} | accuracies)
    if not rows:
        raise PipelineError(f"{METRICS}: every training diverged, so that there is no champion to choose")
    return pd.DataFrame(rows)


def choose(scores: pd.DataFrame) -> dict[str, Any]:
    """The champion: best mean validation accuracy of a variant over its seeds, then its best seed.

    Among equals the first in the order of params.yaml.
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
    """The second-best variant and its mean validation accuracy; None where there is only one."""
    others = means.drop(means.idxmax())
    if others.empty:
        return None
    return {"variant": str(others.idxmax()), "mean_validation_accuracy": float(others.max())}


def model_tags(name: str) -> dict[str, str]:
    """The tags by which the run that trained models/VARIANT-SEED is found."""
    variant, seed = name.rsplit("-", 1)
    digest = file_digest(MODELS / name / "model.keras")
    return {"variant": variant, "seed": seed, "model_digest": digest}


def divergence(name: str) -> str | None:
    """Why the training of models/VARIANT-SEED has no scores; None where it has."""
    metrics = json.loads((METRICS / f"{name}.json").read_text())
    return str(metrics["reason"]) if metrics.get("status") == "diverged" else None


def read_metrics(name: str) -> dict[str, dict[str, float]]:
    """The scores of models/VARIANT-SEED: `validation` and `test`, each from a score's name to its value."""
    scores: dict[str, dict[str, float]] = json.loads((METRICS / f"{name}.json").read_text())
    return scores
