"""Score all trained models on validation and test images, from their stored probabilities.

    python -m pipeline evaluate [VARIANT SEED]

Reads params.yaml (serving), recipes/_index.json, data/prepared/{split,names,validation,test}, predictions and
models (their history and record). Writes metrics/VARIANT-SEED.json, the scores with one view, by which models
are selected, and those of the model as it would be served; evaluation/VARIANT-SEED, its tables and figures as
it would be served; and the tables that `dvc plots show` draws. Logs the first two to the model's run,
unless the run has them. With VARIANT and SEED it scores that model only, so models can be scored although
another training failed. For a training that diverged, the metrics hold its status and reason.
"""

import shutil
from functools import partial
from typing import Any

import click
import numpy as np
from joblib import Parallel, cpu_count, delayed

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.params import Params, Serving
from pipeline.shared import metrics
from pipeline.shared.checked_scores import checked_scores
from pipeline.stages.evaluate import evaluation
from pipeline.support import mlflow_server, mlflow_store
from pipeline.support.errors import PipelineError
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SEED, locked
from pipeline.support.mlflow_outputs import log_evaluation
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import EVALUATION, METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES

MODELS_PER_PROCESS = 4  # starting a process takes as long as scoring so many


@click.command()
@click.argument("model", type=(str, SEED), required=False, metavar="[VARIANT SEED]")
def main(model: tuple[str, int] | None) -> None:
    """Score all models, or one, and log the scores."""
    with locked("evaluate"):  # with or without a model, since each run writes the same tables
        score(model, Params.read().serving)


def score(model: tuple[str, int] | None, serving: Serving) -> None:
    """Score the chosen models, and write and log their scores."""
    check_inputs(
        RECIPES, MODELS, PREDICTIONS, *(PREPARED / part for part in ("split", "names", "validation", "test"))
    )
    mlflow_store.check()
    models = all_models()
    if model is None:
        for folder in (EVALUATION, METRICS):  # they may hold models that params.yaml no longer names
            shutil.rmtree(folder, ignore_errors=True)
    elif (one := ModelFiles(*model)) in models:
        models = [one]
    else:
        known = ", ".join(f"{files.variant} {files.seed}" for files in models)
        raise PipelineError(f"VARIANT SEED: allowed: {known}; received {one.variant} {one.seed}")
    jobs = min(cpu_count(), -(-len(models) // MODELS_PER_PROCESS))
    for line in Parallel(jobs, return_as="generator")(
        delayed(evaluation.evaluate)(one, serving) for one in models
    ):
        print(line, flush=True)
    evaluation.write_comparison(all_models())
    facts = read_facts(PREPARED / "split")
    images = {part: read_arrays(PREPARED / part)["images"] for part in ("validation", "test")}
    for files in models:
        if files.divergence() is None:
            with mlflow_server.best_effort(files.name):
                log(files, serving, facts, images)


def log(files: ModelFiles, serving: Serving, facts: dict[str, Any], images: dict[str, np.ndarray]) -> None:
    """Log a model's scores, unless its file has just been replaced by another model."""
    try:
        log_evaluation(
            files, partial(checked_scores, files, serving.temperature, metrics.scores), facts, images
        )
    except PipelineError as error:
        print(f"{files.name}: its scores are not logged: {error}")
