"""The networks of keras.applications, with the preprocessing that their weights expect."""

import inspect
import math
import sys
from typing import Any

from pipeline.core.backend import keras

DEVIATIONS = (0.229, 0.224, 0.225)  # of ImageNet's channels


def features(inputs: keras.KerasTensor, model: str, alpha: float | None) -> keras.KerasTensor:
    """The last features (n, height, width, channels) of a network for pixels scaled to 0-1."""
    pixels = keras.layers.Rescaling(255)(inputs)  # which Keras's preprocessing expects
    module = sys.modules[getattr(keras.applications, model).__module__]
    return backbone(model, alpha, inputs.shape[1:])(module.preprocess_input(pixels))


def backbone(model: str, alpha: float | None, image_shape: tuple[int, ...]) -> keras.Model:
    """A network without its head, with random weights."""
    built = _build(model, alpha, include_top=False, input_shape=image_shape)
    return _scaled_by_deviations(built) if model.startswith("EfficientNetB") else built


def with_top(model: str, alpha: float | None) -> keras.Model:
    """A network with the head for ImageNet's classes, for images of the size that it is meant for."""
    return _build(model, alpha, include_top=True)


def _build(model: str, alpha: float | None, **arguments: Any) -> keras.Model:
    function = getattr(keras.applications, model)
    if alpha is not None and "alpha" not in inspect.signature(function).parameters:
        raise ValueError(f"alpha: {model} has no such argument; received {alpha}")
    given = {} if alpha is None else {"alpha": alpha}
    return function(weights=None, **arguments, **given)


def _scaled_by_deviations(built: keras.Model) -> keras.Model:
    """Keras (3.15) adds this layer only if it downloads the weights itself, since these are for it."""
    scaling = keras.layers.Rescaling([1 / math.sqrt(deviation) for deviation in DEVIATIONS])

    def call(layer: keras.Layer, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(inputs, *args, **kwargs)
        return scaling(outputs) if isinstance(layer, keras.layers.Normalization) else outputs

    return keras.models.clone_model(built, call_function=call)
