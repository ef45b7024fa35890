"""Small Keras models and recipes that several test files train."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.backend import keras
from pipeline.core.hardware import make_deterministic
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Network
from pipeline.params import Params
from pipeline.stages.recipes import model_config
from pipeline.stages.recipes import stage as recipes
from pipeline.stages.train import keras_fit
from pipeline.stages.train.batches import Images
from pipeline.stages.train.training import make_twin, starting_model
from pipeline.support.digests import digest_of

ROOT = Path(__file__).parents[1]  # conftest, which has it too, imports much
PARAMS = ROOT / "tests/params.yaml"
FACTS = {"image_shape": [32, 32, 3], "classes": range(10), "counts": {"train": 1000}}

# What may happen to the bytes of a file.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "another file": lambda _: b"text" * 100,
    "cut off": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content.replace(middle := content[len(content) // 2 :][:9], middle[::-1]),
}

layers = keras.layers


def optimizer(name: str = "Adam", learning_rate: Any = 0.01, **arguments: Any) -> dict[str, Any]:
    """A Keras optimizer's configuration."""
    made = getattr(keras.optimizers, name)(learning_rate=learning_rate, **arguments)
    config: dict[str, Any] = keras.saving.serialize_keras_object(made)
    return config


def recipe(settings: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe for two epochs, whose model is not used; `settings` are those that differ."""
    made = recipe_of("shallow")
    fields = {"variant": "tiny", "optimizer": optimizer()} | changes
    changed = made.settings.content() | {"batch_size": 4, "epochs": 2} | (settings or {})
    return Recipe.model_validate(made.content() | fields | {"settings": changed})


def listed(*hidden: keras.Layer, classes: int = 2, size: int = 8) -> keras.Sequential:
    """A list of layers between pixels and probabilities."""
    keras.utils.set_random_seed(0)
    pixels = [keras.Input((size, size, 3), dtype="uint8"), layers.Rescaling(1 / 255)]
    return keras.Sequential([*pixels, *hidden, layers.Dense(classes, activation="softmax")], name="listed")


def network_model(name: str, classes: int = 10) -> keras.Model:
    """A network of networks.py, untrained."""
    return model_config.build(Network(name=name), [32, 32, 3], classes, name)


def random_model() -> keras.Sequential:
    """A model with everything random or remembered that networks have."""
    keras.utils.set_random_seed(0)  # layers draw their seeds when they are made
    return listed(
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dropout(0.5),
    )


def residual_model() -> keras.Model:
    """Two branches, one of them a nested model with normalization, that are added."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    stem = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(inputs))
    block = [layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    branch = keras.Sequential([keras.Input((8, 8, 4)), *block], name="block")(stem)
    joined = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(stem + branch))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(joined), name="residual")


class Interrupt(keras.callbacks.Callback):
    """Raises KeyboardInterrupt at the start of an epoch; by default of none."""

    def __init__(self, epoch: int | None = None) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Raise it."""
        if epoch == self.epoch:
            raise KeyboardInterrupt


def images(count: int, size: int = 8, classes: int = 2) -> Images:
    """Random images, labelled in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Images(pixels, np.arange(count) % classes)


def contrary(data: Images) -> Images:
    """The same images of two classes with the other labels, so whatever is learnt is wrong on them."""
    return Images(data.images, 1 - data.labels)


@cache
def recipe_of(variant: str) -> Recipe:
    """The recipe of a variant of the tests' params.yaml for one epoch."""
    params = Params.read(PARAMS)
    key = next(key for key in params.blocks if key.endswith(f".{variant}"))
    block = params.blocks[key].model_copy(update={"epochs": 1, "training_images": None})
    return recipes.recipe(key, block, params, FACTS)


def print_trained(made: Recipe) -> None:
    """Train a model for two steps, and print a digest of its weights."""
    drawn, count = np.random.default_rng(0), 2 * made.settings.batch_size
    learnt = Images(drawn.integers(0, 256, (count, 32, 32, 3), np.uint8), drawn.integers(0, 10, count))
    make_deterministic(0, made.threads)
    model = make_twin(starting_model(made, learnt, None), made, learnt)
    keras_fit.fit(model, made, learnt, learnt, seed=0)
    print(digest_of([hashlib.sha256(weights.tobytes()).hexdigest() for weights in model.get_weights()]))
