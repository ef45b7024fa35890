"""The training twin against the plain model: the same weights and updates, but for rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.core.backend import keras, tf
from pipeline.stages.train import training
from pipeline.stages.train.fast_twin import GELU, BatchNormalization, Twin
from pipeline.stages.train.keras_fit import compile_model
from tests.keras_models import images, layers, listed, optimizer, random_model, recipe, residual_model

DATA = images(20 * 32)


def plain_list() -> keras.Sequential:
    return listed(layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten())


def normalized_list(**arguments: Any) -> keras.Sequential:
    return listed(layers.Conv2D(4, 3), layers.BatchNormalization(**arguments), layers.Flatten())


def vector_list() -> keras.Sequential:
    return listed(layers.Flatten(), layers.Dense(4), layers.BatchNormalization())


def updated(model: keras.Model, steps: int) -> list[np.ndarray]:
    """The weights after so many batches of 32 images."""
    compile_model(model, recipe(optimizer=optimizer("SGD")))  # Adam would blow up rounding of tiny gradients
    for start in range(0, 32 * steps, 32):
        model.train_on_batch(DATA.images[start : start + 32], DATA.labels[start : start + 32])
    return list(model.get_weights())


def residual_without_dropout() -> keras.Model:
    model = residual_model()
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0
    return model


CASES: dict[str, tuple[Callable[[], keras.Model], bool]] = {
    "list": (plain_list, False),
    "normalized list": (normalized_list, True),
    "residual": (residual_without_dropout, True),
    "normalized vectors": (vector_list, True),
    "normalized along an axis that the kernel cannot": (lambda: normalized_list(axis=1), False),
    "normalized without a scale": (lambda: normalized_list(scale=False), True),
    "normalized without a centre": (lambda: normalized_list(center=False), False),
}


@pytest.mark.parametrize(("make", "fused"), CASES.values(), ids=CASES)
def test_first_twenty_updates_are_those_of_the_plain_model(
    make: Callable[[], keras.Model], fused: bool
) -> None:
    plain = make()
    twin = Twin(plain, "float32")
    assert any(isinstance(layer, BatchNormalization) for layer in twin.network._flatten_layers()) == fused
    for one, other in zip(updated(twin, 20), updated(plain, 20), strict=True):
        assert np.allclose(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", [random_model, residual_model])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("mixed_bfloat16", 0.02)])
def test_a_twin_takes_the_models_weights_and_gives_them_back(
    make: Callable[[], keras.Model], precision: str, tolerance: float
) -> None:
    model, some = make(), DATA.images[:7]
    twin = Twin(model, precision)
    assert (twin.name, twin.count_params()) == (model.name, model.count_params())
    answer = twin(some, training=False)
    assert answer.dtype == tf.float32
    assert np.allclose(answer, model(some, training=False), atol=tolerance)
    updated(twin, 1)
    model.set_weights(twin.get_weights())
    assert np.allclose(twin(some, training=False), model(some, training=False), atol=tolerance)
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}


@pytest.mark.parametrize("make", [random_model, residual_model])
def test_inner_layers_compute_in_bfloat16_but_pixels_and_probabilities_do_not(
    make: Callable[[], keras.Model],
) -> None:
    network = Twin(make(), "mixed_bfloat16").network
    leaves = [layer for layer in network._flatten_layers() if not isinstance(layer, keras.Model)]
    exact = ("InputLayer", "Rescaling", "RandomFlip", "RandomRotation")
    for layer in leaves:
        is_exact = type(layer).__name__ in exact or layer is network.layers[-1]
        assert layer.compute_dtype == ("float32" if is_exact else "bfloat16"), layer.name


def test_fused_gelu_equals_keras_in_value_and_gradient() -> None:
    features = tf.linspace(-8.0, 8.0, 1001)

    def seen(layer: keras.layers.Layer) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(layer(features) * features)
        return [np.array(layer(features)), np.array(tape.gradient(total, features))]

    for fused, plain in zip(seen(GELU("gelu")), seen(layers.Activation("gelu")), strict=True):
        assert np.allclose(fused, plain, rtol=0, atol=5e-6)
    half = tf.cast(features, tf.bfloat16)
    assert np.allclose(GELU("gelu", dtype="bfloat16")(half), keras.activations.gelu(half), atol=0.04)
    network = Twin(
        listed(layers.Conv2D(4, 3), layers.Activation("gelu"), layers.Flatten()), "float32"
    ).network
    assert any(isinstance(layer, GELU) for layer in network.layers)


def test_a_gpu_gets_keras_own_layers() -> None:
    model = listed(
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Activation("gelu"), layers.Flatten()
    )
    kinds = {}
    for device in ("cpu", "gpu"):
        twin = training.make_twin(model, recipe(device=device), DATA)
        kinds[device] = {type(layer) for layer in twin.network.layers}
    assert {BatchNormalization, GELU} == kinds["cpu"] - kinds["gpu"]


def test_the_training_loss_is_smoothed_and_the_validation_loss_is_not() -> None:
    model = listed(layers.Flatten(), layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1)))
    twin = Twin(model, "float32", label_smoothing=0.2)
    compile_model(twin, recipe())
    predicted = model(DATA.images[:8]).numpy()
    penalty = 0.1 * float((model.layers[2].kernel.numpy() ** 2).sum())
    actual = np.eye(2)[DATA.labels[:8]]
    smoothed = -(0.8 * actual + 0.1) * np.log(predicted)
    plain = twin.test_on_batch(DATA.images[:8], DATA.labels[:8])[0]
    assert plain == pytest.approx(-(actual * np.log(predicted)).sum(axis=1).mean() + penalty, rel=1e-5)
    weights = np.arange(8.0)
    weighted = twin.train_on_batch(DATA.images[:8], DATA.labels[:8], weights)[0]
    assert weighted == pytest.approx((smoothed.sum(axis=1) * weights).mean() + penalty, rel=1e-5)
    twin.set_weights(model.get_weights())
    trained = twin.train_on_batch(DATA.images[:8], DATA.labels[:8])[0]
    assert trained == pytest.approx(smoothed.sum(axis=1).mean() + penalty, rel=1e-5)
