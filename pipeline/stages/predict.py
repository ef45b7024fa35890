"""Turn one trained model into probabilities for the validation and test images, and some training images.

    python -m pipeline predict VARIANT SEED

Reads the variant's recipe, models/VARIANT-SEED and the images of data/prepared/{train,validation,test}.
Writes predictions/VARIANT-SEED/: `train`, of the first training images, `validation` and `test`, each float32
(n, classes). If the variant has test-time views, say `mirror`, also `validation_mirror` and `test_mirror`,
the mean over the views. Models are compared without them. The facts name the model by the digest of its file.

If `repro` has already predicted, the result is copied.
"""

from pathlib import Path

import click

from pipeline.core.arrays import read_arrays, write_arrays
from pipeline.core.recipe import Recipe
from pipeline.core.result_keys import code_digest, prediction_key
from pipeline.support import job_results
from pipeline.support.digests import file_digest
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SEED, SingleInstance
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED, RECIPES

PARTS = ("validation", "test")
TRAINING_IMAGES = 2_000  # enough to tell by how much a model over-fits


@click.command(cls=SingleInstance)
@click.argument("variant")
@click.argument("seed", type=SEED)
def main(variant: str, seed: int) -> None:
    """Predict validation and test images with one model, or copy the predictions if `repro` has them."""
    files = ModelFiles(variant, seed)
    check_inputs(RECIPES, files.folder, PREPARED / "split")
    files.checkpoint.unlink(missing_ok=True)  # DVC has the model by now
    recipe = Recipe.read(files.variant)
    key = prediction_key(files.model, recipe, code_digest("predict"))
    if not job_results.take(key, files.predictions):
        predict(files.model, recipe, files.predictions)
    stored = read_arrays(files.predictions)
    counts = (f"{len(stored[part]):,} {part}" for part in PARTS)
    print(f"{files.name}: {', '.join(counts)} images")


def predict(path: Path, recipe: Recipe, folder: Path) -> None:
    """Write the probabilities that a model file gives to `folder`."""
    from pipeline.core import keras_file, prediction
    from pipeline.core.hardware import make_deterministic

    check_inputs(*(PREPARED / part for part in ("train", *PARTS)))
    make_deterministic(0, recipe.threads)
    model, digest = keras_file.load(path), file_digest(path)
    images = {part: read_arrays(PREPARED / part)["images"] for part in PARTS}
    images["train"] = read_arrays(PREPARED / "train")["images"][:TRAINING_IMAGES]
    predict_one_view = prediction.predictor(model)
    found = {part: predict_one_view(images[part]) for part in images}
    if views := recipe.settings.views:
        predict_views = prediction.predictor(model, views)
        found |= {f"{part}_{views}": predict_views(images[part]) for part in PARTS}
    write_arrays(folder, found, model_digest=digest)
