"""The published networks: layers, parameters and training as docs/variants.md describes them."""

import re

import numpy as np
import pytest

from pipeline.core.backend import keras
from pipeline.params import Params
from pipeline.stages.recipes import networks
from pipeline.support.known_names import network_names
from tests.conftest import ROOT
from tests.keras_models import network_model

PARAMS = Params.read(ROOT / "params.yaml")
VARIANTS = {key.rpartition(".")[2]: variant for key, variant in PARAMS.blocks.items()}
DOCUMENT = (ROOT / "docs/variants.md").read_text()
DOCUMENTED = re.findall(r"^\| `(\w+)` \| [A-E].* \| (.+) \| (\S+) \|$", DOCUMENT, re.MULTILINE)


def blocks(layers: str, *filters: int) -> str:
    """These layers for each number of filters, and then a pooling that halves the side of the images."""
    return ", ".join(f"{layers.format(n)}, Pool 2 to {16 >> number}" for number, n in enumerate(filters))


# Conv: filters, kernel, padding, activation; Pool: its size, then the side that it leaves, which the padding
# decides only for an odd side.
CONV = "Conv {0} 3 same relu"
FIVE = blocks(CONV, 16, 32, 64, 128, 256)
NORMALIZED = f"{CONV}, BatchNormalization"
MODEL_S = (
    f"{blocks(f'{NORMALIZED}, {NORMALIZED}', 32, 64, 128)}, Flatten, Dropout 0.5, Dense 256 relu, Dropout 0.5"
)
LINEAR = "Conv {0} 3 same linear, BatchNormalization, ReLU"
LAYERS = {
    "translate": "RandomTranslation 0.1 0.1, Conv 16 5 same relu, Pool 2 to 16, Conv 16 4 same relu, "
    "Pool 4 to 4, Flatten, Dense 32 relu",
    "shallow": f"{blocks(CONV, 16)}, Flatten, Dense 16 relu",
    "augmented": "RandomFlip horizontal, RandomFlip vertical, RandomRotation 0.1, RandomZoom 0.1, "
    f"{blocks(CONV, 16, 32, 64)}, Flatten, Dense 64 relu",
    "deep_dropout": f"{FIVE}, Flatten, Dense 1024 relu, Dropout 0.5",
    "deep_flips": f"RandomFlip vertical, RandomFlip horizontal, {FIVE}, Flatten, Dense 512 relu",
    "model_s": MODEL_S,
    "model_s_plus": f"RandomFlip horizontal, RandomTranslation 0.1 0.1, {MODEL_S}",
    "vgg3": f"{blocks(f'{CONV}, {CONV}', 32, 64, 128)}, Flatten, Dropout 0.2, Dense 128 relu",
    "deep_gap": f"{blocks(CONV, 32, 64, 128, 256, 512)}, GlobalAveragePooling2D, "
    "Dense 128 relu, Dense 32 relu",
    "batchnorm": blocks(LINEAR, 32, 64, 128).replace("Conv 32 3", "Conv 32 5")
    + ", Flatten, Dense 128 relu, Dropout 0.3",
    "baseline": "Conv 32 4 valid relu, Pool 2 to 14, Conv 32 4 valid relu, Pool 2 to 5, "
    "Flatten, Dense 256 relu",
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


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("network", LAYERS)
def test_layers_are_those_of_the_document(network: str) -> None:
    first, *hidden, last = network_model(network).layers
    assert [described(layer) for layer in hidden] == LAYERS[network].split(", ")
    assert (type(first).__name__, first.scale) == ("Rescaling", 1 / 255)
    assert described(last) == "Dense 10 softmax"


@pytest.mark.skipif(PARAMS.data.source != "cifar10", reason="params.yaml is for other images")
@pytest.mark.parametrize(("name", "training", "published"), DOCUMENTED)
def test_variant_is_trained_as_its_document_says(name: str, training: str, published: str) -> None:
    variant = VARIANTS[name]
    assert f"{variant.optimizer.name}, batch {variant.batch_size}, " in training.lower()
    assert f"{variant.epochs} epochs" in training
    stopping = variant.early_stopping
    if "the same callbacks" in training:
        assert stopping == VARIANTS["model_s"].early_stopping
    elif stopping:
        assert f"stops after {stopping.patience}" in training
        assert stopping.restore_best_weights == ("best weights" in training)
    else:
        assert "stops" not in training
    assert PARAMS.published.get(name) == (None if published == "none" else float(published))


def test_all_published_variants_are_documented() -> None:
    assert {name for name, *_ in DOCUMENTED} >= PARAMS.published.keys()


@pytest.mark.parametrize("network", network_names())
def test_network_has_as_many_parameters_as_it_says_and_predicts_and_trains(network: str) -> None:
    model = network_model(network)
    if found := re.search(r"([\d,]+) parameters", getattr(networks, network).__doc__):
        assert model.count_params() == int(found[1].replace(",", ""))
    predicted = model(IMAGES, training=False).numpy()
    assert predicted.shape == (4, 10)
    assert np.isfinite(predicted).all()
    before = model.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)  # costs less than a graph
    model.train_on_batch(IMAGES, np.arange(4) % 3)
    assert any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))


def test_only_hidden_kernels_of_model_s_plus_are_regularized() -> None:
    *hidden, last = network_model("model_s_plus").layers
    kernels = [layer for layer in hidden if type(layer).__name__ in ("Conv2D", "Dense")]
    assert [float(layer.kernel_regularizer.l2) for layer in kernels] == pytest.approx([1e-4] * 7)
    assert [layer.bias_regularizer for layer in kernels] == [None] * 7
    assert last.kernel_regularizer is None
    for network in set(LAYERS) - {"model_s_plus"}:
        assert network_model(network).losses == []
