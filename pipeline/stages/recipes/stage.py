"""Write the recipe of each variant: everything but data and code that decides its training.

    python -m pipeline recipes

Reads params.yaml, pipeline/stages/recipes/networks.py and the facts of data/prepared/split. Writes
recipes/VARIANT/recipe.json for each variant, start.keras beside it if the variant starts with weights, and
recipes/_index.json, the models that params.yaml asks for. A training depends on its own folder only, so it
runs again only if that changes. In the same way other stages depend on recipes/_KEY.json, a file for each
section that params.yaml may lack, since a key that DVC is to watch must be there. Files of weights that were
downloaded are kept in data/download.
"""

import shutil
from typing import Any

import click

from pipeline.core import hardware, keras_file
from pipeline.core.arrays import read_facts, write_json
from pipeline.core.recipe import Recipe, check_versions
from pipeline.params import Block, Params
from pipeline.stages.recipes import model_config, optimizer_config
from pipeline.stages.recipes.settings_check import check_settings
from pipeline.stages.recipes.start_model import start_model
from pipeline.support.errors import PipelineError
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.model_files import INDEX
from pipeline.support.paths import PARAMS, PREPARED, RECIPES
from pipeline.support.words import count


@click.command(cls=SingleInstance)
def main() -> None:
    """Build all recipes, then write them."""
    params = Params.read()
    check_versions(params.training.versions, f"{PARAMS}: training")
    check_inputs(PREPARED / "split")
    facts = read_facts(PREPARED / "split")
    for key, block in params.blocks.items():
        if (wanted := block.training_images or 0) > (images := facts["counts"]["train"]):
            print(f"{PARAMS}: {key}.training_images: {wanted:,}, but there are {images:,}: all are used")
    recipes = {key: recipe(key, block, params, facts) for key, block in params.blocks.items()}
    starts = {
        key: start_model(f"{PARAMS}: {key}.start", block.start, recipes[key], facts["classes"])
        for key, block in params.blocks.items()
        if block.start
    }
    shutil.rmtree(RECIPES, ignore_errors=True)
    for key, made in recipes.items():
        write_json(made.path, made.content())
        if made.start:
            keras_file.save(starts[key], made.start)
    for name in ("promotion", "serving", "published", "card"):
        write_json(RECIPES / f"_{name}.json", params.model_dump(mode="json")[name])
    write_json(INDEX, [{"variant": model.variant, "seed": model.seed} for model in params.models])
    print(f"recipes: {count(len(recipes), 'variant')}, {count(len(params.models), 'training')}")


def recipe(key: str, variant: Block, params: Params, facts: dict[str, Any]) -> Recipe:
    """The recipe of the variant whose block has this key.

    Raises PipelineError, naming a key, if Keras cannot build or train it.
    """
    name, where = key.rpartition(".")[2], f"{PARAMS}: {key}"
    variant = with_images(where, variant, facts["counts"]["train"])
    check_settings(where, variant)
    precision = variant.precision or params.training.precision
    steps = variant.steps(facts["counts"]["train"])
    shape, classes = facts["image_shape"], len(facts["classes"])
    augmentation = variant.augmentation or []
    config = model_config.configuration(where, variant.network, shape, classes, name, augmentation)
    if variant.whitening:
        model_config.check_whitening(f"{where}.whitening", config)
    return Recipe(
        variant=name,
        init_from=params.finetune.init_from if key.startswith("finetune.") else None,
        model=config,
        optimizer=optimizer_config.configuration(f"{where}.optimizer", variant.optimizer, steps),
        settings=variant.without_source(),
        threads=params.training.threads,
        precision=hardware.resolve_precision(precision),
        precision_setting=precision,
        device=hardware.device(),
        versions=params.training.versions,
    )


def with_images(key: str, variant: Block, images: int) -> Block:
    """The variant with at most as many training images as there are.

    Raises PipelineError if a batch has more than it trains on.
    """
    used = min(images, variant.training_images or images)
    if variant.batch_size > used:
        rule = f"must be at most {used}, the number of training images"
        raise PipelineError(f"{key}.batch_size: {rule}; received {variant.batch_size}")
    return variant.model_copy(update={"training_images": variant.training_images and used})
