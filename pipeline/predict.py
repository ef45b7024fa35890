"""Turn one trained model into probabilities for the validation and test images.

    python -m pipeline.predict VARIANT SEED

Reads recipes/VARIANT.json, models/VARIANT-SEED and the images of data/prepared/{validation,test}. Writes
predictions/VARIANT-SEED/: `validation` and `test`, each float32 (n, classes).
"""

from pipeline.integrity import check_inputs
from pipeline.learning import model_file
from pipeline.learning.hardware import make_deterministic
from pipeline.learning.recipe import Recipe
from pipeline.shared.arrays import read_arrays, write_arrays
from pipeline.shared.errors import one_line_errors
from pipeline.shared.lock import single_instance
from pipeline.shared.paths import PREPARED, RECIPES
from pipeline.shared.trained import trained_from_arguments

PARTS = ("validation", "test")


@one_line_errors
@single_instance
def main() -> None:
    """Predict and write."""
    trained = trained_from_arguments("Predict validation and test images with one trained model.")
    check_inputs(RECIPES, trained.folder, *(PREPARED / part for part in PARTS))
    trained.checkpoint.unlink(missing_ok=True)  # DVC has the model by now
    recipe = Recipe.read(trained.variant)
    make_deterministic(0, recipe.threads, recipe.share_batches)
    model = model_file.load(trained.model)
    images = {part: read_arrays(PREPARED / part)["images"] for part in PARTS}
    predicted = {part: model_file.probabilities(model, images[part]) for part in PARTS}
    write_arrays(trained.predictions, predicted)
    print(f"{trained.name}: {', '.join(f'{len(rows):,} {part}' for part, rows in predicted.items())} images")


if __name__ == "__main__":
    main()
