"""Score all trained models on validation and test images, from their stored probabilities.

    python -m pipeline evaluate [VARIANT SEED]

Reads recipes/_index.json, data/prepared/{split,validation,test}, predictions and models (their history and
record). Writes metrics/VARIANT-SEED.json, from which models are selected, the tables and figures of
evaluation/VARIANT-SEED, and the tables that `dvc plots show` draws. Logs the first two to the model's run,
unless the run has them. With VARIANT and SEED it scores that model only, so models can be scored although
another training failed. For a training that diverged, the metrics hold its status and reason.
"""

import shutil

import click
from joblib import Parallel, cpu_count, delayed

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.stages.evaluate import evaluation
from pipeline.stages.evaluate.comparison import write_comparison
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SEED, locked
from pipeline.support.mlflow_outputs import log_evaluation
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import EVALUATION, METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES

MODELS_PER_PROCESS = 4  # starting a process takes as long as scoring so many


@click.command()
@click.argument("variant", required=False)
@click.argument("seed", type=SEED, required=False)
def main(variant: str | None, seed: int | None) -> None:
    """Score all models, or one, and log the scores."""
    with locked("evaluate"):  # whatever the arguments, since all write the same tables
        score(variant, seed)


def score(variant: str | None, seed: int | None) -> None:
    """Score the chosen models, and write and log their scores."""
    check_inputs(RECIPES, MODELS, PREDICTIONS, *(PREPARED / part for part in ("split", "validation", "test")))
    models = chosen_models(variant, seed)
    for files in models:
        if not files.predictions.is_dir():
            raise PipelineError(
                f"{files.predictions}: missing: run `dvc repro predict@{files.name}`, or score one model "
                "with `python -m pipeline evaluate VARIANT SEED`"
            )
    mlflow_store.check()
    if models == all_models():
        for folder in (EVALUATION, METRICS):  # they may hold models that params.yaml no longer names
            shutil.rmtree(folder, ignore_errors=True)
    jobs = min(cpu_count(), -(-len(models) // MODELS_PER_PROCESS))
    for line in Parallel(jobs, return_as="generator")(delayed(evaluation.evaluate)(one) for one in models):
        print(line, flush=True)
    write_comparison(all_models())
    facts = read_facts(PREPARED / "split")
    images = {part: read_arrays(PREPARED / part)["images"] for part in ("validation", "test")}
    for files in models:
        if files.divergence() is None:
            with mlflow_runs.best_effort(files.name):
                log_evaluation(files, facts, images)


def chosen_models(variant: str | None, seed: int | None) -> list[ModelFiles]:
    """The model of a variant and a seed; all models without a variant."""
    models = all_models()
    if variant is None:
        return models
    one = ModelFiles(variant, -1 if seed is None else seed)
    if one not in models:
        known = ", ".join(f"{files.variant} {files.seed}" for files in models)
        received = variant if seed is None else f"{variant} {seed}"
        raise PipelineError(f"VARIANT SEED: allowed: {known}; received {received}")
    return [one]
