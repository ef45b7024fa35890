"""A variant's model: a network of networks.py as Keras's own configuration, checked.

Used only by `recipes`. Trainings build the model from the configuration.
"""

import inspect
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from pipeline.core.backend import keras
from pipeline.core.variant import Network
from pipeline.stages.recipes import networks
from pipeline.stages.train.augmentation import is_training_only
from pipeline.stages.train.initial_weights import WHITENING
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

INPUTS = "inputs"  # the first parameter of a network that is a function of a tensor
OUTPUT = "probabilities"  # the name of the last layer


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

    Some layers draw a random seed when they are made. It becomes null, so that each training draws its own.
    Raises PipelineError, naming the `key`, if the network cannot be built, saved or served.
    """
    check_arguments(key, getattr(networks, network.name), network.arguments, skip={INPUTS})
    made = []
    for seed in (0, 1):
        keras.utils.clear_session()  # or layers would be numbered on from the last model's
        keras.utils.set_random_seed(seed)
        try:
            model = build(network, image_shape, classes, name)
            made.append(keras.saving.serialize_keras_object(model))
        except Exception as error:  # of networks.py or of Keras
            size = f"for images of {image_shape[0]} pixels (data.image_size)"
            raise PipelineError(f"{key}: cannot be built {size}: {in_a_line(error)[:500]}") from error
    if model.output_shape != (None, classes):
        raise PipelineError(
            f"{key}: must end in one vector for each image, to which {classes} probabilities are added; "
            f"received an output of shape {model.output_shape}"
        )
    check_layers(key, model, made[0])
    return _without_drawn_seeds(*made)


def check_whitening(key: str, config: dict[str, Any]) -> None:
    """Raise PipelineError, naming the `key`, unless a list of layers has a convolution that can whiten."""
    model = keras.saving.deserialize_keras_object(deepcopy(config))  # Keras changes it
    layers = model.layers if isinstance(model, keras.Sequential) else []
    shapes = [
        layer.kernel.shape
        for layer in layers
        if layer.name == WHITENING and isinstance(layer, keras.layers.Conv2D) and layer.use_bias
    ]
    if not any(filters == 2 * height * width * channels for height, width, channels, filters in shapes):
        raise PipelineError(
            f"{key}: needs a list of layers in which a Conv2D named {WHITENING!r} has a bias and two filters "
            "for each value of its patch, as `speedrun` has"
        )


def check_arguments(key: str, function: Any, arguments: dict[str, Any], skip: set[str]) -> None:
    """Raise PipelineError if a function does not take these arguments, or lacks one."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in skip and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if unknown := sorted(set(arguments) - set(parameters)):
        allowed = ", ".join(parameters) or "none"
        raise PipelineError(f"{key}.{unknown[0]}: unknown argument; allowed: {allowed}")
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            raise PipelineError(f"{key}.{name}: missing")


def check_layers(key: str, model: keras.Model, config: dict[str, Any]) -> None:
    """Raise PipelineError if the saved model would need more than Keras to be loaded."""
    passing = {type(layer).__name__ for layer in model.layers if is_training_only(layer)}
    for part in _objects(config):
        name, module = part["class_name"], part.get("module") or ""
        # Tensors, tuples and the like, and Keras's layers.
        is_plain = name.startswith("__") or module.partition(".")[0] == "keras"
        if not (name in passing or (is_plain and name not in {"Lambda", "function", "__lambda__"})):
            raise PipelineError(
                f"{key}: {shortened(part.get('registered_name') or name)} is not Keras's own, so the model "
                "could not be loaded where it is served; a layer that acts in training only may be marked "
                "with `training_only = True` and stand in the outermost network"
            )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """All serialized Keras objects in a configuration."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _objects(value)


def _without_drawn_seeds(one: Any, other: Any) -> Any:
    """A configuration without what differs in another one of the same network."""
    if isinstance(one, dict):
        return {key: _without_drawn_seeds(value, other[key]) for key, value in one.items()}
    if isinstance(one, list | tuple):
        return [_without_drawn_seeds(*pair) for pair in zip(one, other, strict=True)]
    return one if one == other else None
