"""Train one variant with one seed, in an MLflow run of its own.

    python -m pipeline.train VARIANT SEED

Reads recipes/VARIANT.json, data/prepared/{split,train,validation} and, for a fine-tuned variant, the model
that it starts from. Writes models/VARIANT-SEED/: `model.keras`, which is scored and served; `history.csv`,
a row for each epoch; `training.json`, its tags, parameters and results. If a loss becomes infinite or NaN,
the training ends normally with the status `diverged`, which is reported and never promoted.

If `pipeline.repro` has done this training already, its result is copied.
"""

from pipeline.integrity import check_inputs
from pipeline.learning.recipe import Recipe, code_digest, training_tags
from pipeline.shared import results
from pipeline.shared.arguments import variant_and_seed
from pipeline.shared.arrays import digest_of
from pipeline.shared.lock import command
from pipeline.shared.paths import PREPARED, RECIPES


@command
def main() -> None:
    """Copy the result if `pipeline.repro` has it, or train."""
    trained = variant_and_seed("Train one variant with one seed.")
    check_inputs(RECIPES, PREPARED / "split")
    recipe = Recipe.read(trained.variant)
    base = recipe.base(trained.seed)
    start = base.model if base else None
    if start:
        check_inputs(start)
    tags = training_tags(trained, recipe, start, code_digest("train"))
    if not results.take(digest_of(tags), trained.folder):
        from pipeline.training.body import train  # TensorFlow and MLflow

        train(trained, recipe, tags, start)
    print(f"{trained.name}: {trained.outcome()}")


if __name__ == "__main__":
    main()
