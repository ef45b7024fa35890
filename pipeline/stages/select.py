"""Choose a model on validation data alone.

    python -m pipeline select

Chooses the variant with the highest mean validation accuracy over its seeds, and its best seed. Reads
recipes/_index.json, data/prepared/{split,validation}, metrics, the predictions, which must agree with them,
and models. Writes selection.json, a metric of DVC's: the same bytes for the same inputs. `promote` asks the
registry whether the chosen model becomes champion.
"""

from typing import Any

import click
import pandas as pd

from pipeline.core.arrays import write_json
from pipeline.shared.selection import Selection, read_scores
from pipeline.shared.stored_probabilities import checked_scores
from pipeline.support.digests import file_digest
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES, SELECTION


@click.command(cls=SingleInstance)
def main() -> None:
    """Choose a model."""
    check_inputs(METRICS, MODELS, PREDICTIONS, RECIPES, PREPARED / "split", PREPARED / "validation")
    models = all_models()
    for files in models:
        checked_scores(files, images=["validation"])
    chosen = choose(read_scores(models))
    digest = file_digest(ModelFiles(chosen["variant"], chosen["seed"]).model)
    selection = Selection(**chosen, model_digest=digest)
    write_json(SELECTION, selection.model_dump())
    accuracy = f"mean validation accuracy {selection.mean_validation_accuracy:.4f}"
    print(f"select: {selection.files.name}, {accuracy}, seeds: {selection.seeds}")


def choose(scores: pd.DataFrame) -> dict[str, Any]:
    """The fields of the selection, except the digest, from the table of `read_scores`.

    Ties go to the first in the order of params.yaml.
    """
    means = scores.groupby("variant", sort=False)["validation_accuracy"].mean()
    others = means.drop(means.idxmax())
    second = None
    if len(others):
        second = {"variant": str(others.idxmax()), "mean_validation_accuracy": float(others.max())}
    seeds = scores[scores["variant"] == means.idxmax()]
    best = seeds.sort_values("validation_accuracy", ascending=False, kind="stable").iloc[0]
    return {
        "variant": str(best["variant"]),
        "seed": int(best["seed"]),
        "validation_accuracy": float(best["validation_accuracy"]),
        "mean_validation_accuracy": float(means.max()),
        "seeds": len(seeds),
        "test_accuracy": float(best["test_accuracy"]),
        "runner_up": second,
    }
