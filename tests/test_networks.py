"""The published networks: layers, parameters and optimizers as their documents describe them."""

import numpy as np
import pytest

from pipeline.design import architecture
from pipeline.learning.backend import keras
from pipeline.params import Params
from pipeline.shared.load_params import load_params
from pipeline.shared.variant import network_names
from tests.conftest import ROOT
from tests.keras_models import network_model

BLOCKS = load_params(Params, ROOT / "params.yaml").blocks
VARIANTS = {key.rpartition(".")[2]: variant for key, variant in BLOCKS.items()}

# parameters, optimizer and batch size
PARAMETERS = {
    "translate": (13_882, "adam", 32),
    "shallow": (66_170, "adam", 32),
    "augmented": (89_834, "adam", 32),
    "augmented_sgd": (89_834, "sgd", 32),
    "deep_dropout": (666_026, "adam", 32),
    "deep_flips": (529_322, "adam", 32),
    "model_s": (815_914, "rmsprop", 64),
    "model_s_plus": (815_914, "adam", 64),
    "vgg3": (550_570, "adam", 32),
    "vgg3_early_stop": (550_570, "adam", 32),
    "deep_gap": (1_638_698, "adam", 32),
    "batchnorm": (359_242, "adam", 32),
    "batchnorm_subset": (359_242, "adam", 32),
    "baseline": (225_610, "adam", 32),
    "speedrun": (570_306, "scaled_sgd", 512),
    "speedrun_full": (1_973_954, "scaled_sgd", 512),
}

# One line for each block. Conv: filters, kernel, padding, activation; Pool: its size, then the side that it
# leaves, which the padding decides only for an odd side.
LAYERS = {
    "translate": """
        RandomTranslation 0.1 0.1
        Conv 16 5 same relu, Pool 2 to 16
        Conv 16 4 same relu, Pool 4 to 4
        Flatten, Dense 32 relu""",
    "shallow": """
        Conv 16 3 same relu, Pool 2 to 16
        Flatten, Dense 16 relu""",
    "augmented": """
        RandomFlip horizontal, RandomFlip vertical, RandomRotation 0.1, RandomZoom 0.1
        Conv 16 3 same relu, Pool 2 to 16
        Conv 32 3 same relu, Pool 2 to 8
        Conv 64 3 same relu, Pool 2 to 4
        Flatten, Dense 64 relu""",
    "deep_dropout": """
        Conv 16 3 same relu, Pool 2 to 16
        Conv 32 3 same relu, Pool 2 to 8
        Conv 64 3 same relu, Pool 2 to 4
        Conv 128 3 same relu, Pool 2 to 2
        Conv 256 3 same relu, Pool 2 to 1
        Flatten, Dense 1024 relu, Dropout 0.5""",
    "deep_flips": """
        RandomFlip vertical, RandomFlip horizontal
        Conv 16 3 same relu, Pool 2 to 16
        Conv 32 3 same relu, Pool 2 to 8
        Conv 64 3 same relu, Pool 2 to 4
        Conv 128 3 same relu, Pool 2 to 2
        Conv 256 3 same relu, Pool 2 to 1
        Flatten, Dense 512 relu""",
    "model_s": """
        Conv 32 3 same relu, BatchNormalization, Conv 32 3 same relu, BatchNormalization, Pool 2 to 16
        Conv 64 3 same relu, BatchNormalization, Conv 64 3 same relu, BatchNormalization, Pool 2 to 8
        Conv 128 3 same relu, BatchNormalization, Conv 128 3 same relu, BatchNormalization, Pool 2 to 4
        Flatten, Dropout 0.5, Dense 256 relu, Dropout 0.5""",
    "model_s_plus": """
        RandomFlip horizontal, RandomTranslation 0.1 0.1
        Conv 32 3 same relu, BatchNormalization, Conv 32 3 same relu, BatchNormalization, Pool 2 to 16
        Conv 64 3 same relu, BatchNormalization, Conv 64 3 same relu, BatchNormalization, Pool 2 to 8
        Conv 128 3 same relu, BatchNormalization, Conv 128 3 same relu, BatchNormalization, Pool 2 to 4
        Flatten, Dropout 0.5, Dense 256 relu, Dropout 0.5""",
    "vgg3": """
        Conv 32 3 same relu, Conv 32 3 same relu, Pool 2 to 16
        Conv 64 3 same relu, Conv 64 3 same relu, Pool 2 to 8
        Conv 128 3 same relu, Conv 128 3 same relu, Pool 2 to 4
        Flatten, Dropout 0.2, Dense 128 relu""",
    "deep_gap": """
        Conv 32 3 same relu, Pool 2 to 16
        Conv 64 3 same relu, Pool 2 to 8
        Conv 128 3 same relu, Pool 2 to 4
        Conv 256 3 same relu, Pool 2 to 2
        Conv 512 3 same relu, Pool 2 to 1
        GlobalAveragePooling2D, Dense 128 relu, Dense 32 relu""",
    "batchnorm": """
        Conv 32 5 same linear, BatchNormalization, ReLU, Pool 2 to 16
        Conv 64 3 same linear, BatchNormalization, ReLU, Pool 2 to 8
        Conv 128 3 same linear, BatchNormalization, ReLU, Pool 2 to 4
        Flatten, Dense 128 relu, Dropout 0.3""",
    "baseline": """
        Conv 32 4 valid relu, Pool 2 to 14
        Conv 32 4 valid relu, Pool 2 to 5
        Flatten, Dense 256 relu""",
}


def described(layer: keras.Layer) -> str:
    kind = type(layer).__name__
    if kind == "Conv2D":
        assert layer.kernel_size[0] == layer.kernel_size[1]
        assert layer.strides == (1, 1)
        activation = layer.activation.__name__
        return f"Conv {layer.filters} {layer.kernel_size[0]} {layer.padding} {activation}"
    if kind == "MaxPooling2D":
        assert layer.pool_size == layer.strides
        return f"Pool {layer.pool_size[0]} to {layer.output.shape[1]}"
    if kind == "RandomRotation":
        lowest, highest = layer.factor
        assert lowest == -highest
        return f"RandomRotation {highest}"
    settings = layer.get_config()
    keys = {
        "Dense": ["units", "activation"],
        "Dropout": ["rate"],
        "RandomFlip": ["mode"],
        "RandomTranslation": ["height_factor", "width_factor"],
        "RandomZoom": ["height_factor"],
    }
    return " ".join([kind, *(str(settings[key]) for key in keys.get(kind, []))])


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("network", LAYERS)
def test_layers_are_those_of_the_document(network: str) -> None:
    expected = [layer.strip() for line in LAYERS[network].strip().split("\n") for layer in line.split(",")]
    first, *hidden, last = network_model(network).layers
    assert [described(layer) for layer in hidden] == expected
    assert (type(first).__name__, first.scale) == ("Rescaling", 1 / 255)
    assert described(last) == "Dense 10 softmax"


@pytest.mark.parametrize("name", PARAMETERS)
def test_variant_is_as_published(name: str) -> None:
    parameters, optimizer, batch_size = PARAMETERS[name]
    variant = VARIANTS[name]
    assert architecture.build(variant.network, [32, 32, 3], 10, name).count_params() == parameters
    assert (variant.optimizer.name, variant.batch_size) == (optimizer, batch_size)


@pytest.mark.parametrize("name", ["model_s", "model_s_plus"])
def test_all_but_the_normalization_statistics_are_trained(name: str) -> None:
    trainable = network_model(name).trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in trainable) == 815_018


@pytest.mark.parametrize("network", network_names())
def test_network_predicts_and_trains(network: str) -> None:
    model = network_model(network, classes=3)
    images, labels = random_images(4), np.arange(4) % 3
    predicted = model(images, training=False).numpy()
    assert predicted.shape == (4, 3)
    assert np.isfinite(predicted).all()
    before = model.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)  # costs less than a graph
    model.train_on_batch(images, labels)
    assert any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))


def test_only_hidden_kernels_of_model_s_plus_are_regularized() -> None:
    *hidden, last = network_model("model_s_plus").layers
    kernels = [layer for layer in hidden if type(layer).__name__ in ("Conv2D", "Dense")]
    assert [float(layer.kernel_regularizer.l2) for layer in kernels] == pytest.approx([1e-4] * 7)
    assert [layer.bias_regularizer for layer in kernels] == [None] * 7
    assert last.kernel_regularizer is None
    for network in set(LAYERS) - {"model_s_plus"}:
        assert network_model(network).losses == []


@pytest.mark.parametrize("network", ["translate", "augmented", "deep_flips", "model_s_plus"])
def test_augmentation_changes_images_in_training_only(network: str) -> None:
    keras.utils.set_random_seed(0)
    images, model = random_images(4), network_model(network)
    output = images
    for layer in model.layers:
        if not type(layer).__name__.startswith("Random"):
            output = layer(output)
    expected = keras.ops.convert_to_numpy(output)
    assert np.allclose(model(images, training=False).numpy(), expected, atol=1e-6)
    assert not np.allclose(model(images, training=True).numpy(), expected, atol=1e-3)
