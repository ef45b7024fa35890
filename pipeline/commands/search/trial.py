"""One trial of a search, on a node: a training that reports each epoch, and that the search may stop."""

import os
import time
from typing import Any

from ray import tune

from pipeline.commands.search.ranges import Scalar, with_values
from pipeline.core.arrays import read_facts
from pipeline.params import Finetune, Params
from pipeline.running import ray_node
from pipeline.support.errors import PipelineError
from pipeline.support.paths import PREPARED


def trial(
    values: dict[str, Scalar], variant: str, params: Params, digest: str, data: ray_node.Data, seed: int
) -> None:
    """Train a variant with these values of its block.

    After each epoch it reports `accuracy` on validation images and `cpu_seconds`. At the end it reports once
    more: `accuracy` and `kept` are then those of the weights that the training keeps, 0 if it diverged.
    `refused` says why, if the values are not allowed.
    """
    if not params.cluster.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a trial that asked for none
    from pipeline.core.hardware import make_deterministic
    from pipeline.stages.recipes import stage as recipes
    from pipeline.stages.train import training
    from pipeline.stages.train.augmentation import without_training_only

    started = time.process_time()

    def report(accuracy: float, **more: Any) -> None:
        tune.report({"accuracy": accuracy, "cpu_seconds": time.process_time() - started} | more)

    # Before Keras makes a recipe's model, after which TensorFlow's threads cannot change.
    make_deterministic(seed, params.training.threads)
    with ray_node.workspace(f"trial-{tune.get_context().get_trial_id()}", digest, data, {}):
        block = with_values(params, variant, values)
        facts = read_facts(PREPARED / "split")
        changed = params.model_copy(update={"variants": {variant: block}, "finetune": Finetune()})
        try:
            recipes.check_sizes(changed, facts["counts"]["train"])
            recipe = recipes.recipe(f"variants.{variant}", block, changed, facts)
        except PipelineError as error:
            report(0.0, refused=str(error))
            return
        model, images, validation = training.begin(recipe, seed)
        watching = training.report_epochs(lambda epoch: report(epoch[2]), block.epochs)
        fit = training.fit_model(model, recipe, images, validation, seed, watching)
        measured = training.measures(without_training_only(model), recipe, fit, validation)
    kept = measured.get("validation/accuracy", 0.0)
    report(kept, kept=kept)
