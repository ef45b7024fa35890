"""Turn one trained model into probabilities for the validation and test images.

    python -m pipeline.predict VARIANT SEED

Reads recipes/VARIANT.json, models/VARIANT-SEED and the images of data/prepared/{validation,test}. Writes
predictions/VARIANT-SEED/: `validation` and `test`, each float32 (n, classes). If the variant has test-time
views, say `mirror`, also `validation_mirror` and `test_mirror`, the mean over the views. Models are compared
without them.

If `pipeline.repro` has made these predictions already, they are copied.
"""

from pathlib import Path

from pipeline.integrity import check_inputs
from pipeline.learning.recipe import Recipe, code_digest, prediction_key
from pipeline.shared import results
from pipeline.shared.arguments import variant_and_seed
from pipeline.shared.arrays import read_arrays, write_arrays
from pipeline.shared.lock import command
from pipeline.shared.paths import PREPARED, RECIPES

PARTS = ("validation", "test")


@command
def main() -> None:
    """Copy the predictions if `pipeline.repro` has them, or predict."""
    trained = variant_and_seed("Predict validation and test images with one trained model.")
    check_inputs(RECIPES, trained.folder, PREPARED / "split")
    trained.checkpoint.unlink(missing_ok=True)  # DVC has the model by now
    recipe = Recipe.read(trained.variant)
    key = prediction_key(trained.model, recipe, code_digest("predict"))
    if not results.take(key, trained.predictions):
        predict(trained.model, recipe, trained.predictions)
    counts = (f"{len(rows):,} {part}" for part, rows in read_arrays(trained.predictions).items())
    print(f"{trained.name}: {', '.join(counts)} images")


def predict(path: Path, recipe: Recipe, folder: Path) -> None:
    """Write the probabilities that a model file gives to `folder`."""
    from pipeline.learning import model_file  # TensorFlow
    from pipeline.learning.hardware import make_deterministic

    check_inputs(*(PREPARED / part for part in PARTS))
    make_deterministic(0, recipe.threads, recipe.share_batches)
    model = model_file.load(path)
    images = {part: read_arrays(PREPARED / part)["images"] for part in PARTS}
    found = {part: model_file.probabilities(model, images[part]) for part in PARTS}
    if views := recipe.settings.get("views"):
        found |= {f"{part}_{views}": model_file.probabilities(model, images[part], views) for part in PARTS}
    write_arrays(folder, found)


if __name__ == "__main__":
    main()
