"""A variant's model as Keras's own configuration, checked: a network of networks.py after random layers."""

import inspect
import json
from collections.abc import Sequence
from copy import deepcopy
from functools import reduce
from typing import Any

import numpy as np

from pipeline.core.backend import keras
from pipeline.core.variant import Named, Network
from pipeline.stages.recipes import networks
from pipeline.stages.recipes.keras_objects import keras_object, kinds_of
from pipeline.stages.train import augmentation as own_layers
from pipeline.stages.train.augmentation import Augmentation, is_training_only
from pipeline.stages.train.initial_weights import WHITENING, set_whitening
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

INPUTS = "inputs"  # the first parameter of a network that is a function of a tensor
OUTPUT = "probabilities"  # the name of the last layer
RANDOM_LAYERS = kinds_of("layers", keras.layers, own_layers)


def build(
    network: Network, image_shape: list[int], classes: int, name: str, random_layers: Sequence[Any] = ()
) -> keras.Model:
    """A new model from uint8 images (n, *image_shape) to float32 probabilities (n, classes).

    Scales by 1/255, after the random layers, so callers pass plain pixels.
    """
    function = getattr(networks, network.name)
    augmentation = [Augmentation(list(random_layers))] if random_layers else []
    first = [keras.Input(image_shape, dtype="uint8"), *augmentation, keras.layers.Rescaling(1 / 255)]
    last = keras.layers.Dense(classes, activation="softmax", name=OUTPUT)
    if INPUTS not in inspect.signature(function).parameters:
        return keras.Sequential([*first, *function(**network.arguments), last], name=name)
    inputs, *layers = first
    scaled = reduce(lambda tensor, layer: layer(tensor), layers, inputs)
    return keras.Model(inputs, last(function(scaled, **network.arguments)), name=name)


def configuration(
    key: str,
    network: Network,
    image_shape: list[int],
    classes: int,
    name: str,
    augmentation: Sequence[Named] = (),
) -> dict[str, Any]:
    """The model of the block with this key as Keras serializes it, the same in every process.

    Some layers draw a random seed when they are created. It becomes null, so each training draws its own.
    Raises PipelineError, naming a key, if the network cannot be built, saved or served.
    """
    network_key = f"{key}.network"
    configs, models = [], []
    for seed in (0, 1):
        keras.utils.clear_session(free_memory=False)  # or layers would be numbered on from the last model's
        keras.utils.set_random_seed(seed)
        random_layers = [
            random_layer(f"{key}.augmentation.{number}", named, image_shape)
            for number, named in enumerate(augmentation)
        ]
        try:
            model = build(network, image_shape, classes, name, random_layers)
            configs.append(keras.saving.serialize_keras_object(model))
            models.append(model)
        except Exception as error:  # of networks.py or of Keras
            size = f"for images of {image_shape[0]} pixels (data.image_size)"
            raise PipelineError(f"{network_key}: cannot be built {size}: {in_a_line(error)[:500]}") from error
    if model.output_shape != (None, classes):
        received = f"with the softmax layer, the shape is {model.output_shape}"
        raise PipelineError(f"{network_key}: must return one vector per image; {received}")
    check_layers(network_key, model, configs[0])
    check_weights(network_key, models[0], models[1], configs[0])
    return _without_drawn_seeds(*configs)


def random_layer(key: str, named: Named, image_shape: list[int]) -> keras.Layer:
    """One of the layers that change images at random, tried on an image.

    Raises PipelineError, naming the `key`, if it cannot be used or returns images of another shape.
    """
    layer = keras_object(key, named, RANDOM_LAYERS)
    try:
        shape = layer(np.zeros((1, *image_shape), np.float32), training=True).shape[1:]
    except Exception as error:  # Keras checks few arguments before it uses them
        raise PipelineError(f"{key}: cannot be used: {in_a_line(error)[:500]}") from error
    if list(shape) != image_shape:
        raise PipelineError(f"{key}: must keep the images' shape, {image_shape}; it returns {list(shape)}")
    return layer


def check_whitening(key: str, config: dict[str, Any]) -> None:
    """Raise PipelineError, naming the `key`, unless a list of layers has a convolution that can whiten."""
    model = keras.saving.deserialize_keras_object(deepcopy(config))  # Keras changes it
    try:
        set_whitening(model, np.zeros((1, *model.input_shape[1:]), np.uint8))
    except Exception as error:
        raise PipelineError(
            f"{key}: needs a list of layers in which a Conv2D named {WHITENING!r} has a bias and two filters "
            "for each value of its patch, as `speedrun` has"
        ) from error


def check_layers(key: str, model: keras.Model, config: dict[str, Any]) -> None:
    """Raise PipelineError if loading the saved model would need more than Keras."""
    in_training_only = {type(layer).__name__ for layer in model.layers if is_training_only(layer)}
    parts: list[dict[str, Any]] = []
    json.loads(json.dumps(config), object_hook=parts.append)  # each mapping, however deep
    for part in parts:
        name, module = part.get("class_name", "__mapping__"), part.get("module") or ""
        # Tensors, tuples and the like, and Keras's layers.
        is_plain = name.startswith("__") or module.partition(".")[0] == "keras"
        if not (name in in_training_only or (is_plain and name not in {"Lambda", "function", "__lambda__"})):
            raise PipelineError(
                f"{key}: {shortened(part.get('registered_name') or name)} is not Keras's own, so the model "
                "could not be loaded where it is served; a layer that acts in training only may be marked "
                "with `training_only = True` and used in the outermost network"
            )


def check_weights(key: str, one: keras.Model, other: keras.Model, config: dict[str, Any]) -> None:
    """Raise PipelineError if a network, built twice, holds weights that its configuration does not give.

    Weights that an initializer draws differ in all three models.
    """
    again = keras.saving.deserialize_keras_object(deepcopy(config))
    for held, built, made in zip(one.weights, other.weights, again.weights, strict=True):
        if np.array_equal(held, built) and not np.array_equal(held, made):
            raise PipelineError(
                f"{key}: holds weights, such as {held.path}, which its recipe would lose: write them to a "
                "file, and let `start` of the variant name it"
            )


def _without_drawn_seeds(one: Any, other: Any) -> Any:
    """A configuration without what differs in another one of the same network."""
    if isinstance(one, dict):
        return {key: _without_drawn_seeds(value, other[key]) for key, value in one.items()}
    if isinstance(one, list | tuple):
        return [_without_drawn_seeds(*pair) for pair in zip(one, other, strict=True)]
    return one if one == other else None
