"""The model's file: canonical bytes, plain Keras, errors that name it; and its probabilities."""

import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.learning import model_file
from pipeline.learning.backend import keras
from pipeline.shared.errors import PipelineError
from tests.keras_models import layers, listed


@pytest.fixture(scope="module")
def model() -> keras.Sequential:
    hidden = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    return listed(*hidden, classes=10, size=32)


@pytest.fixture
def file(model: keras.Sequential, tmp_path: Path) -> Path:
    model_file.save(model, tmp_path / "model.keras")
    return tmp_path / "model.keras"


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_the_same_model_gives_the_same_bytes_later(model: keras.Sequential, file: Path) -> None:
    first = file.read_bytes()
    time.sleep(1.1)  # the date of saving counts seconds
    model_file.save(model, file)
    assert file.read_bytes() == first


def test_a_loaded_model_is_saved_with_the_same_weights(file: Path, model: keras.Sequential) -> None:
    loaded = model_file.load(file)
    for kept, weight in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(kept, weight)


def test_other_weights_give_other_bytes(model: keras.Sequential, file: Path, tmp_path: Path) -> None:
    other = keras.models.clone_model(model)
    weights = model.get_weights()
    weights[-1] = weights[-1] + 1e-6
    other.set_weights(weights)
    model_file.save(other, tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_bytes() != file.read_bytes()


def test_saving_makes_folders_and_leaves_nothing_else(model: keras.Sequential, tmp_path: Path) -> None:
    model_file.save(model, tmp_path / "deep" / "er" / "model.keras")
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["model.keras"]


def test_plain_keras_loads_the_file_in_safe_mode(model: keras.Sequential, file: Path) -> None:
    loaded = keras.saving.load_model(file, safe_mode=True)
    images = random_images(3)
    assert np.array_equal(model_file.probabilities(loaded, images), model_file.probabilities(model, images))


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "text": b"not a model",
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
    }


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
def test_a_damaged_file_is_named(damage: str, file: Path) -> None:
    file.write_bytes(damaged(file.read_bytes())[damage])
    with pytest.raises(PipelineError, match="not a readable Keras model") as caught:
        model_file.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.keras"):
        model_file.load(tmp_path / "absent.keras")


@pytest.mark.parametrize("count", [1, 4, 7])
def test_probabilities_are_the_models_own_whatever_the_batch(model: keras.Sequential, count: int) -> None:
    images = random_images(count)
    found = model_file.probabilities(model, images, batch_size=4)
    assert found.dtype == np.float32
    assert found.shape == (count, 10)
    assert np.allclose(found, keras.ops.convert_to_numpy(model(images, training=False)), atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_plain_pixels_are_scaled_by_the_model(model: keras.Sequential) -> None:
    images = random_images(2)
    hidden = images.astype(np.float32) / 255
    for layer in model.layers[1:]:
        hidden = layer(hidden)
    assert np.allclose(model_file.probabilities(model, images), keras.ops.convert_to_numpy(hidden), atol=1e-6)
