"""Score all trained models on validation and test images, from their stored probabilities.

    python -m pipeline.evaluate [VARIANT SEED]

Reads recipes/_index.json, data/prepared/{split,validation,test}, predictions and models (their history and
record). Writes metrics/VARIANT-SEED.json, from which models are selected, the tables and figures of
evaluation/VARIANT-SEED, and the tables that `dvc plots show` draws. Logs the first two to the model's run,
unless the run has them. With VARIANT and SEED it scores that model only, so models can be scored although
another training failed. For a training that diverged, the metrics hold its status and reason.
"""

import argparse
import os
import shutil

from joblib import Parallel, delayed

from pipeline.integrity import check_inputs
from pipeline.records import store, tracking
from pipeline.records.outputs import log_evaluation
from pipeline.scoring import evaluation
from pipeline.scoring.comparison import write_comparison
from pipeline.shared.arrays import read_facts
from pipeline.shared.errors import PipelineError
from pipeline.shared.lock import command
from pipeline.shared.paths import EVALUATION, METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES
from pipeline.shared.trained import Trained, all_trained

MODELS_PER_PROCESS = 4  # which is what starting a process costs


@command
def main() -> None:
    """Score, write and log."""
    models = chosen_models()
    check_inputs(RECIPES, MODELS, PREDICTIONS, *(PREPARED / part for part in ("split", "validation", "test")))
    for trained in models:
        if not trained.predictions.is_dir():
            raise PipelineError(
                f"{trained.predictions}: missing: run `dvc repro predict@{trained.name}`, or score one model "
                "with `python -m pipeline.evaluate VARIANT SEED`"
            )
    store.check()
    if models == all_trained():
        for folder in (EVALUATION, METRICS):  # which may hold models of earlier params
            shutil.rmtree(folder, ignore_errors=True)
    jobs = min(os.cpu_count() or 1, -(-len(models) // MODELS_PER_PROCESS))
    for line in Parallel(jobs, return_as="generator")(delayed(evaluation.evaluate)(one) for one in models):
        print(line, flush=True)
    write_comparison(all_trained())
    experiment = read_facts(PREPARED / "split")["name"]
    for trained in models:
        if trained.divergence() is None:
            with tracking.best_effort(trained.name):
                log_evaluation(trained, experiment)


def chosen_models() -> list[Trained]:
    """The model that the arguments name; all without arguments."""
    parser = argparse.ArgumentParser(description="Score all trained models, or one.")
    parser.add_argument("variant", nargs="?", help="a key of `variants` or `finetune.variants`")
    parser.add_argument("seed", nargs="?", type=int, help="the seed that it was trained with")
    arguments = parser.parse_args()
    models = all_trained()
    if arguments.variant is None:
        return models
    one = Trained(arguments.variant, arguments.seed)
    if one not in models:
        known = ", ".join(f"{trained.variant} {trained.seed}" for trained in models)
        raise PipelineError(f"VARIANT SEED: allowed: {known}; received {one.variant} {one.seed}")
    return [one]


if __name__ == "__main__":
    main()
