"""The fourteen variants as their documents describe them: layers, parameters and training."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.learning import models, training
from pipeline.learning.backend import keras
from pipeline.settings.hyperparameters import Hyperparameters, network_names
from pipeline.settings.reading import read_params

PARAMS = read_params(Hyperparameters, Path(__file__).parent.parent / "params.yaml")
VARIANTS = {name: PARAMS.variant(name) for name in [*PARAMS.variants, *PARAMS.finetune.variants]}
AUGMENTED = ["translate", "augmented", "deep_flips", "model_s_plus"]

PARAMETERS = {
    "translate": 13_882,
    "shallow": 66_170,
    "augmented": 89_834,
    "augmented_sgd": 89_834,
    "deep_dropout": 666_026,
    "deep_flips": 529_322,
    "model_s": 815_914,
    "model_s_plus": 815_914,
    "vgg3": 550_570,
    "vgg3_early_stop": 550_570,
    "deep_gap": 1_638_698,
    "batchnorm": 359_242,
    "batchnorm_subset": 359_242,
    "baseline": 225_610,
}

# One line a block. Conv: filters, kernel, padding, activation; Pool: its size, then the side that it
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

BEST_OF_6, BEST_OF_7, BEST_OF_10 = [("val_loss", patience, True) for patience in (6, 7, 10)]
LAST_OF_2, LAST_OF_8 = [("val_loss", patience, False) for patience in (2, 8)]

# network, optimizer, learning rate, batch size, epochs, early stopping, whether the rate is lowered
TRAINING = {
    "translate": ("translate", "adam", 0.001, 32, 64, LAST_OF_8, False),
    "shallow": ("shallow", "adam", 0.001, 32, 30, None, False),
    "augmented": ("augmented", "adam", 0.001, 32, 30, None, False),
    "augmented_sgd": ("augmented", "sgd", 0.01, 32, 10, None, False),
    "deep_dropout": ("deep_dropout", "adam", 0.001, 32, 30, None, False),
    "deep_flips": ("deep_flips", "adam", 0.001, 32, 30, None, False),
    "model_s": ("model_s", "rmsprop", 0.001, 64, 30, BEST_OF_6, True),
    "model_s_plus": ("model_s_plus", "adam", 0.001, 64, 40, BEST_OF_6, True),
    "vgg3": ("vgg3", "adam", 0.001, 32, 35, None, False),
    "vgg3_early_stop": ("vgg3", "adam", 0.001, 32, 40, BEST_OF_7, False),
    "deep_gap": ("deep_gap", "adam", 0.001, 32, 50, None, False),
    "batchnorm": ("batchnorm", "adam", 0.001, 32, 40, BEST_OF_10, False),
    "batchnorm_subset": ("batchnorm", "adam", 0.001, 32, 40, BEST_OF_10, False),
    "baseline": ("baseline", "adam", 0.001, 32, 25, LAST_OF_2, False),
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


def test_the_specification_covers_every_variant_and_every_network() -> None:
    assert set(PARAMETERS) == set(TRAINING) == set(VARIANTS)
    assert set(LAYERS) == set(network_names())


@pytest.mark.parametrize("network", LAYERS)
def test_layers_are_those_of_the_document(network: str) -> None:
    expected = [layer.strip() for line in LAYERS[network].strip().split("\n") for layer in line.split(",")]
    first, *hidden, last = models.build(network, 10, network).layers
    assert [described(layer) for layer in hidden] == expected
    assert (type(first).__name__, first.scale) == ("Rescaling", 1 / 255)
    assert described(last) == "Dense 10 softmax"


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    model = models.build(VARIANTS[name].network, 10, name)
    assert model.count_params() == PARAMETERS[name]


@pytest.mark.parametrize("name", ["model_s", "model_s_plus"])
def test_all_but_the_normalization_statistics_are_trained(name: str) -> None:
    trainable = models.build(name, 10, name).trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in trainable) == 815_018


@pytest.mark.parametrize("name", VARIANTS)
def test_training_is_as_published(name: str) -> None:
    variant = VARIANTS[name]
    stopping = variant.early_stopping
    assert TRAINING[name] == (
        variant.network,
        variant.optimizer.name,
        variant.optimizer.learning_rate,
        variant.batch_size,
        variant.epochs,
        stopping and (stopping.monitor, stopping.patience, stopping.restore_best_weights),
        variant.reduce_learning_rate is not None,
    )


@pytest.mark.parametrize("name", ["model_s", "model_s_plus"])
def test_learning_rate_is_lowered_as_published(name: str) -> None:
    reduce = VARIANTS[name].reduce_learning_rate
    assert reduce is not None
    assert (reduce.monitor, reduce.factor, reduce.patience) == ("val_loss", 0.1, 3)


def test_only_the_subset_variant_takes_fewer_images_and_anothers_weights() -> None:
    limits = {name: variant.training_images for name, variant in VARIANTS.items()}
    assert {name: limit for name, limit in limits.items() if limit} == {"batchnorm_subset": 10_000}
    assert PARAMS.finetune.init_from == "batchnorm"
    assert list(PARAMS.finetune.variants) == ["batchnorm_subset"]


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_trains_a_step_and_predicts_the_same_after_loading(name: str, tmp_path: Path) -> None:
    images, labels = random_images(4), np.arange(4)
    model = models.build(VARIANTS[name].network, 10, name)
    before = model.get_weights()
    training.compile_model(model, VARIANTS[name])
    model.run_eagerly = True  # one step costs less than its graph
    model.train_on_batch(images, labels)
    assert any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))

    models.save(model, tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    predicted = keras.ops.convert_to_numpy(model(images, training=False))
    assert np.array_equal(predicted, keras.ops.convert_to_numpy(loaded(images, training=False)))
    assert np.isfinite(predicted).all()


def test_only_hidden_kernels_of_model_s_plus_are_regularized() -> None:
    *hidden, last = models.build("model_s_plus", 10, "plus").layers
    kernels = [layer for layer in hidden if type(layer).__name__ in ("Conv2D", "Dense")]
    assert [float(layer.kernel_regularizer.l2) for layer in kernels] == pytest.approx([1e-4] * 7)
    assert [layer.bias_regularizer for layer in kernels] == [None] * 7
    assert last.kernel_regularizer is None
    for network in set(LAYERS) - {"model_s_plus"}:
        assert models.build(network, 10, network).losses == []


@pytest.mark.parametrize("network", LAYERS)
def test_output_has_as_many_probabilities_as_classes(network: str) -> None:
    model = models.build(network, 3, network)
    assert model.output_shape == (None, 3)
    assert model(random_images(2)).shape == (2, 3)


@pytest.mark.parametrize("network", AUGMENTED)
def test_augmentation_does_nothing_at_inference(network: str) -> None:
    images = random_images(4)
    model = models.build(network, 10, network)
    plain = [layer for layer in model.layers if not type(layer).__name__.startswith("Random")]
    assert len(plain) < len(model.layers)
    output = images
    for layer in plain:
        output = layer(output)
    expected = keras.ops.convert_to_numpy(output)
    assert np.allclose(keras.ops.convert_to_numpy(model(images, training=False)), expected, atol=1e-6)


def test_augmentation_changes_the_images_in_training() -> None:
    keras.utils.set_random_seed(0)
    images = random_images(4)
    augmented = models.build("augmented", 10, "augmented")
    first, second = (keras.ops.convert_to_numpy(augmented(images, training=True)) for _ in range(2))
    assert not np.allclose(first, second)
