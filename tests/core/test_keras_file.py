"""The model's file: plain Keras, errors that name it; and its probabilities."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import keras_file, prediction
from pipeline.core.backend import keras
from tests.conftest import refusal
from tests.keras_models import DAMAGES, layers, listed


@pytest.fixture(scope="module")
def model() -> keras.Sequential:
    hidden = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    return listed(*hidden, classes=10, size=32)


@pytest.fixture
def file(model: keras.Sequential, tmp_path: Path) -> Path:
    keras_file.save(model, tmp_path / "model.keras")
    return tmp_path / "model.keras"


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_a_loaded_model_has_the_same_weights_and_plain_keras_loads_it_too(
    model: keras.Sequential, file: Path
) -> None:
    for loaded in (keras_file.load(file), keras.saving.load_model(file, safe_mode=True)):
        for kept, weights in zip(model.get_weights(), loaded.get_weights(), strict=True):
            assert np.array_equal(kept, weights)
        one, other = (prediction.probabilities(each, random_images(3)) for each in (loaded, model))
        assert np.array_equal(one, other)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(damage: Callable[[bytes], bytes], file: Path) -> None:
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(keras_file.load, file).startswith(f"{file}: not a readable Keras model: ")


@pytest.mark.parametrize("count", [1, 4, 7])
def test_probabilities_are_those_of_the_model_whatever_the_batch(
    model: keras.Sequential, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "BATCH", 4)
    images = random_images(count)
    found = prediction.probabilities(model, images)
    assert found.dtype == np.float32
    assert found.shape == (count, 10)
    assert np.allclose(found, keras.ops.convert_to_numpy(model(images, training=False)), atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_model_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), layers.Lambda(lambda x: x)])
    keras_file.save(model, tmp_path / "model.keras")
    line = refusal(keras_file.load, tmp_path / "model.keras")
    assert "model.keras: not a readable Keras model: " in line
    assert "Lambda" in line
