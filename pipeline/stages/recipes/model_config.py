"""A variant's model: a network of networks.py as Keras's own configuration, checked."""

import inspect
import json
from copy import deepcopy
from typing import Any

import numpy as np

from pipeline.core.backend import keras
from pipeline.core.variant import Network
from pipeline.stages.recipes import networks
from pipeline.stages.train.augmentation import is_training_only
from pipeline.stages.train.initial_weights import WHITENING, set_whitening
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

INPUTS = "inputs"  # the first parameter of a network that is a function of a tensor
OUTPUT = "probabilities"  # the name of the last layer
NOT_IN_PARAMS = {INPUTS, "name", "kwargs"}  # parameters that params.yaml does not set


def build(network: Network, image_shape: list[int], classes: int, name: str) -> keras.Model:
    """A new model from uint8 images (n, *image_shape) to float32 probabilities (n, classes).

    Scaling by 1/255 is its first layer, so callers pass plain pixels.
    """
    function = getattr(networks, network.name)
    inputs = keras.Input(image_shape, dtype="uint8")
    scale = keras.layers.Rescaling(1 / 255)
    last = keras.layers.Dense(classes, activation="softmax", name=OUTPUT)
    if INPUTS in inspect.signature(function).parameters:
        return keras.Model(inputs, last(function(scale(inputs), **network.arguments)), name=name)
    return keras.Sequential([inputs, scale, *function(**network.arguments), last], name=name)


def configuration(
    key: str, network: Network, image_shape: list[int], classes: int, name: str
) -> dict[str, Any]:
    """The model as Keras serializes it, the same in every process.

    Some layers draw a random seed when they are created. It becomes null, so each training draws its own.
    Raises PipelineError, naming the `key`, if the network cannot be built, saved or served.
    """
    check_arguments(key, getattr(networks, network.name), network.arguments)
    configs = []
    for seed in (0, 1):
        keras.utils.clear_session()  # or layers would be numbered on from the last model's
        keras.utils.set_random_seed(seed)
        try:
            model = build(network, image_shape, classes, name)
            configs.append(keras.saving.serialize_keras_object(model))
        except Exception as error:  # of networks.py or of Keras
            size = f"for images of {image_shape[0]} pixels (data.image_size)"
            raise PipelineError(f"{key}: cannot be built {size}: {in_a_line(error)[:500]}") from error
    if model.output_shape != (None, classes):
        received = f"with the softmax layer, the shape is {model.output_shape}"
        raise PipelineError(f"{key}: must return one vector per image; {received}")
    check_layers(key, model, configs[0])
    return _without_drawn_seeds(*configs)


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


def check_arguments(key: str, function: Any, arguments: dict[str, Any]) -> None:
    """Raise PipelineError if a function does not know all of these arguments."""
    known = [name for name in inspect.signature(function).parameters if name not in NOT_IN_PARAMS]
    if unknown := sorted(set(arguments) - set(known)):
        raise PipelineError(f"{key}.{unknown[0]}: unknown argument; allowed: {', '.join(known) or 'none'}")


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


def _without_drawn_seeds(one: Any, other: Any) -> Any:
    """A configuration without what differs in another one of the same network."""
    if isinstance(one, dict):
        return {key: _without_drawn_seeds(value, other[key]) for key, value in one.items()}
    if isinstance(one, list | tuple):
        return [_without_drawn_seeds(*pair) for pair in zip(one, other, strict=True)]
    return one if one == other else None
