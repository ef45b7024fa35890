"""Choose a model on validation data alone.

    python -m pipeline select

Chooses the variant with the best mean over its seeds of promotion.metric, by default accuracy, and its best
seed. Reads params.yaml (promotion), recipes/_index.json, data/prepared/{split,validation}, metrics, the
predictions, which must agree with them, and models. Writes selection.json, a metric of DVC's: the same bytes
for the same inputs. `promote` asks the registry whether the chosen model becomes champion.
"""

from typing import Any

import click
import pandas as pd

from pipeline.core.arrays import write_json
from pipeline.params import Params
from pipeline.shared.checked_scores import checked_scores, measured_by
from pipeline.shared.selection import Selection, in_words, merit, read_scores
from pipeline.support.digests import file_digest
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES, SELECTION


@click.command(cls=SingleInstance)
def main() -> None:
    """Choose a model."""
    check_inputs(METRICS, MODELS, PREDICTIONS, RECIPES, PREPARED / "split", PREPARED / "validation")
    models, metric = all_models(), Params.read().promotion.metric
    for files in models:
        checked_scores(files, measured=measured_by(metric), names=["validation"])
    chosen = choose(read_scores(models), metric)
    digest = file_digest(ModelFiles(chosen["variant"], chosen["seed"]).model)
    selection = Selection(**chosen, model_digest=digest)
    write_json(SELECTION, selection.model_dump())
    score = f"mean validation {in_words(metric)} {selection.mean_validation_score:.4f}"
    print(f"select: {selection.files.name}, {score}, seeds: {selection.seeds}")


def choose(scores: pd.DataFrame, metric: str = "accuracy") -> dict[str, Any]:
    """The fields of the selection by a metric, except the digest, from the table of `read_scores`.

    Ties go to the first in the order of params.yaml.
    """
    scores = scores.assign(merit=[merit(metric, score) for score in scores[f"validation_{metric}"]])
    merits = scores.groupby("variant", sort=False)["merit"].mean()
    others = merits.drop(merits.idxmax())
    second = None
    if len(others):
        mean = merit(metric, float(others.max()))
        second = {"variant": str(others.idxmax()), "mean_validation_score": mean}
    seeds = scores[scores["variant"] == merits.idxmax()]
    best = seeds.sort_values("merit", ascending=False, kind="stable").iloc[0]
    return {
        "variant": str(best["variant"]),
        "seed": int(best["seed"]),
        "metric": metric,
        "validation_score": float(best[f"validation_{metric}"]),
        "mean_validation_score": merit(metric, float(merits.max())),
        "seeds": len(seeds),
        "validation_accuracy": float(best["validation_accuracy"]),
        "test_accuracy": float(best["test_served_accuracy"]),
        "runner_up": second,
    }
