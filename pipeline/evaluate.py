"""Score all trained models on validation and test images, from their stored probabilities.

    python -m pipeline.evaluate [VARIANT SEED]

Reads recipes/_index.json, data/prepared/{split,validation,test}, predictions and models (their history and
record). Writes metrics/VARIANT-SEED.json, from which models are selected, the tables and figures of
evaluation/VARIANT-SEED, and the tables that `dvc plots show` draws. Logs the first two to the model's run,
unless the run has them. With VARIANT and SEED it scores that model only, so models can be scored although
another training failed. For a training that diverged, the metrics hold its status and reason.
"""

import argparse
import shutil

from joblib import Parallel, cpu_count, delayed

from pipeline.integrity import check_inputs
from pipeline.records import store, tracking
from pipeline.records.outputs import log_evaluation
from pipeline.scoring import evaluation
from pipeline.scoring.comparison import write_comparison
from pipeline.shared.arrays import read_facts
from pipeline.shared.errors import PipelineError, one_line_errors
from pipeline.shared.lock import locked
from pipeline.shared.paths import EVALUATION, METRICS, MODELS, PREDICTIONS, PREPARED, RECIPES
from pipeline.shared.trained import Trained, all_trained

MODELS_PER_PROCESS = 4  # starting a process takes as long as scoring so many


@one_line_errors
def main() -> None:
    """Score, write and log; one evaluation at a time, since all write the same tables."""
    arguments = parsed_arguments()
    with locked("evaluate"):
        score(arguments)


def score(arguments: argparse.Namespace) -> None:
    """Score the chosen models, and write and log their scores."""
    check_inputs(RECIPES, MODELS, PREDICTIONS, *(PREPARED / part for part in ("split", "validation", "test")))
    models = chosen_models(arguments)
    for trained in models:
        if not trained.predictions.is_dir():
            raise PipelineError(
                f"{trained.predictions}: missing: run `dvc repro predict@{trained.name}`, or score one model "
                "with `python -m pipeline.evaluate VARIANT SEED`"
            )
    store.check()
    if models == all_trained():
        for folder in (EVALUATION, METRICS):  # they may hold models that params.yaml no longer names
            shutil.rmtree(folder, ignore_errors=True)
    jobs = min(cpu_count(), -(-len(models) // MODELS_PER_PROCESS))
    for line in Parallel(jobs, return_as="generator")(delayed(evaluation.evaluate)(one) for one in models):
        print(line, flush=True)
    write_comparison(all_trained())
    experiment = read_facts(PREPARED / "split")["name"]
    for trained in models:
        if trained.divergence() is None:
            with tracking.best_effort(trained.name):
                log_evaluation(trained, experiment)


def parsed_arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description="Score all trained models, or one.")
    parser.add_argument("variant", nargs="?", help="a key of `variants` or `finetune.variants`")
    parser.add_argument("seed", nargs="?", type=int, help="the seed that it was trained with")
    return parser.parse_args()


def chosen_models(arguments: argparse.Namespace) -> list[Trained]:
    """The model that the arguments name; all without arguments."""
    models = all_trained()
    if arguments.variant is None:
        return models
    one = Trained(arguments.variant, arguments.seed)
    if one not in models:
        known = ", ".join(f"{trained.variant} {trained.seed}" for trained in models)
        received = one.variant if one.seed is None else f"{one.variant} {one.seed}"
        raise PipelineError(f"VARIANT SEED: allowed: {known}; received {received}")
    return [one]


if __name__ == "__main__":
    main()
