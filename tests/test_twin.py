"""The training twin against the plain model: the same weights, the same updates, rounding aside."""

import numpy as np
import pytest

from pipeline.learning import models, training
from pipeline.learning.backend import keras, tf
from pipeline.learning.twin import BatchNormalization, Sharded, twin
from pipeline.settings.hyperparameters import Optimizer, Variant

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20 * 32, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 10, len(IMAGES))


def built(network: str) -> keras.Sequential:
    keras.utils.set_random_seed(0)
    return models.build(network, 10, network)


def compiled(model: keras.Sequential) -> keras.Sequential:
    adam = Optimizer(name="adam", learning_rate=0.001)
    training.compile_model(model, Variant(network="shallow", optimizer=adam, batch_size=32, epochs=1))
    return model


def updated(model: keras.Sequential, steps: int) -> list[np.ndarray]:
    """The weights after training on the first batches, one update a batch, in their order."""
    compiled(model)
    for start in range(0, 32 * steps, 32):
        model.train_on_batch(IMAGES[start : start + 32], LABELS[start : start + 32])
    return list(model.get_weights())


@pytest.mark.parametrize("threads", [1, 2])
def test_first_twenty_updates_are_those_of_the_plain_model(threads: int) -> None:
    plain = built("shallow")
    fast = twin(plain, "float32", threads)
    for one, other in zip(updated(fast, 20), updated(plain, 20), strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", ["augmented", "batchnorm"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_twin_has_the_models_weights_and_answers_and_gives_its_weights_back(
    network: str, precision: str
) -> None:
    model = built(network)
    fast = twin(model, precision, threads=2)
    assert (fast.name, fast.count_params()) == (model.name, model.count_params())
    expected = model(IMAGES[:7], training=False).numpy()
    answer = fast(IMAGES[:7], training=False)
    assert answer.dtype == tf.float32
    assert np.allclose(answer, expected, atol=1e-6 if precision == "float32" else 0.02)
    updated(fast, 1)
    model.set_weights(fast.get_weights())
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert np.allclose(
        model(IMAGES[:7], training=False),
        fast(IMAGES[:7], training=False),
        atol=1e-6 if precision == "float32" else 0.02,
    )


def test_inner_layers_compute_in_bfloat16_and_pixels_and_probabilities_do_not() -> None:
    computed = {
        layer.name: layer.compute_dtype for layer in twin(built("augmented"), "mixed_bfloat16", 1).layers
    }
    assert computed.pop("probabilities") == "float32"
    early = [name for name in computed if name.startswith(("rescaling", "random"))]
    assert len(early) == 5
    assert {computed.pop(name) for name in early} == {"float32"}
    assert set(computed.values()) == {"bfloat16"}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_batch_is_answered_whole_in_parts_of_any_size(count: int) -> None:
    model = built("shallow")
    fast = twin(model, "float32", threads=3)
    assert isinstance(fast, Sharded)
    assert np.allclose(fast(IMAGES[:count]), model(IMAGES[:count]), atol=1e-6)
    assert np.isfinite(compiled(fast).train_on_batch(IMAGES[:count], LABELS[:count])).all()


def test_a_batch_in_parts_is_normalized_by_the_statistics_of_the_whole() -> None:
    layers = keras.layers
    inner = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
    pixels = [keras.Input((32, 32, 3), dtype="uint8"), layers.Rescaling(1 / 255)]
    model = keras.Sequential([*pixels, *inner, layers.Dense(10, activation="softmax")])

    def seen(threads: int) -> list[np.ndarray]:
        fast = twin(model, "float32", threads)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(fast(IMAGES[:32], training=True)[:, 0])
        gradients = tape.gradient(loss, [weight.value for weight in fast.trainable_weights])
        return [value.numpy() for value in gradients] + fast.get_weights()

    for parts, whole in zip(seen(3), seen(1), strict=True):
        assert np.allclose(parts, whole, rtol=1e-4, atol=1e-6)


def test_fused_normalization_is_keras_own_in_value_gradient_and_averages() -> None:
    images = tf.constant(RNG.normal(2, 3, (8, 6, 6, 4)), tf.float32)
    upstream = tf.constant(RNG.normal(size=images.shape), tf.float32)

    def seen(layer: keras.layers.BatchNormalization) -> list[np.ndarray]:
        layer.build(images.shape)
        layer.gamma.assign([0.5, 1, 1.5, 2])
        layer.beta.assign([-1, 0, 1, 2])
        with tf.GradientTape() as tape:
            tape.watch(images)
            out = layer(images, training=True)
            total = tf.reduce_sum(out * upstream)
        gradients = tape.gradient(total, [images, layer.gamma.value, layer.beta.value])
        after = layer(images, training=False)
        return [
            np.array(value.numpy()) for value in (out, *gradients, *(w.value for w in layer.weights), after)
        ]

    for fused, plain in zip(seen(BatchNormalization()), seen(keras.layers.BatchNormalization()), strict=True):
        assert np.allclose(fused, plain, rtol=1e-4, atol=1e-5)


def test_fused_normalization_keeps_its_weights_names_and_order() -> None:
    model = built("batchnorm")
    paths = [weight.path for weight in twin(model, "float32", 1).weights]
    assert paths == [weight.path for weight in model.weights]
