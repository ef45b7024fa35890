"""Train one variant with one seed, in an MLflow run of its own.

    python -m pipeline train VARIANT SEED

Reads recipes/VARIANT, data/prepared/{split,train,validation} and, for a fine-tuned variant, the model that it
starts from. Writes models/VARIANT-SEED/: `model.keras`, which is scored and served; `history.csv`,
a row for each epoch; `training.json`, its tags, parameters and results. If a loss becomes infinite or NaN,
the training ends normally with the status `diverged`, which is reported and never promoted.

If `repro` has done this training already, its result is copied.
"""

import click

from pipeline.core.recipe import Recipe
from pipeline.core.result_keys import code_digest, training_tags
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SEED, SingleInstance
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED, RECIPES


@click.command(cls=SingleInstance)
@click.argument("variant")
@click.argument("seed", type=SEED)
def main(variant: str, seed: int) -> None:
    """Train one variant with one seed, or copy the result if `repro` has it."""
    files = ModelFiles(variant, seed)
    check_inputs(RECIPES, PREPARED / "split")
    recipe = Recipe.read(files.variant)
    base = recipe.base(files.seed)
    start = base.model if base else recipe.start
    if base:
        check_inputs(base.model)
    tags = training_tags(files, recipe, start, code_digest("train"))
    if not job_results.take(digest_of(tags), files.folder):
        from pipeline.stages.train.training import train  # TensorFlow and MLflow

        train(files, recipe, tags, start)
    print(f"{files.name}: {files.record().outcome}")
