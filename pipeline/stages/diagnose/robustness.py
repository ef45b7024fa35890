"""A model's accuracy on corrupted images.

A corruption is a function of uint8 images (n, height, width, 3) and a strength. They are much as in Hendrycks
and Dietterich, Benchmarking Neural Network Robustness (2019), for small images.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

if TYPE_CHECKING:
    import keras

CHUNK = 200  # images, for the memory


@dataclass(frozen=True)
class Corruption:
    """A way to change images, with five strengths from weak to strong, and what these are."""

    function: Callable[[np.ndarray, float], np.ndarray]
    strengths: tuple[float, ...]
    unit: str


def brightness(images: np.ndarray, added: float) -> np.ndarray:
    """Lighter by so many of 255 levels."""
    return _pixels(images + np.float32(added))


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Differences to each image's mean, times a factor."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _pixels(mean + np.float32(factor) * (images - mean))


def grey(images: np.ndarray, removed: float) -> np.ndarray:
    """Less colour: so much of it is removed, 1 for a grey image of the same lightness."""
    return _each(images, lambda image: ImageEnhance.Color(image).enhance(1 - removed))


def hue(images: np.ndarray, degrees: float) -> np.ndarray:
    """Other colours: the hue is turned by so many degrees; lightness changes little."""

    def turned(image: Image.Image) -> Image.Image:
        values = np.array(image.convert("HSV"))
        values[..., 0] += np.uint8(round(degrees * 256 / 360))  # it wraps, as hues do
        return Image.frombytes("HSV", image.size, values.tobytes()).convert("RGB")

    return _each(images, turned)


def noise(images: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian noise of this standard deviation, in levels; the same for the same images."""
    random = np.random.default_rng(images[:, 0, 0, 0].tolist())
    return _pixels(images + np.float32(deviation) * random.standard_normal(images.shape, np.float32))


def blur(images: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of this radius, in pixels of an image of 32."""
    scaled = radius * images.shape[2] / 32
    return _each(images, lambda image: image.filter(ImageFilter.GaussianBlur(scaled)))


def translation(images: np.ndarray, pixels: float) -> np.ndarray:
    """Moved to the right and down by so many pixels of an image of 32; the edge is repeated."""
    by = round(pixels * images.shape[2] / 32)
    padded = np.pad(images, ((0, 0), (by, 0), (by, 0), (0, 0)), mode="edge")
    return padded[:, : images.shape[1], : images.shape[2]]


def jpeg(images: np.ndarray, quality: float) -> np.ndarray:
    """Stored as JPEG with this quality."""

    def stored(image: Image.Image) -> Image.Image:
        image.save(file := io.BytesIO(), "JPEG", quality=int(quality))
        return Image.open(file)

    return _each(images, stored)


CORRUPTIONS = {
    "brightness": Corruption(brightness, (20, 40, 60, 80, 100), "levels of 255 added"),
    "contrast": Corruption(contrast, (0.8, 0.6, 0.4, 0.3, 0.2), "factor"),
    "grey": Corruption(grey, (0.2, 0.4, 0.6, 0.8, 1), "fraction of the colour removed"),
    "hue": Corruption(hue, (15, 30, 60, 120, 180), "degrees turned"),
    "noise": Corruption(noise, (5, 10, 15, 20, 25), "standard deviation in levels of 255"),
    "blur": Corruption(blur, (0.4, 0.7, 1, 1.5, 2), "radius in 1/32 of the width"),
    "translation": Corruption(translation, (1, 2, 4, 6, 8), "1/32 of the width"),
    "JPEG": Corruption(jpeg, (75, 50, 35, 20, 10), "quality"),
}


def robustness(
    model: "keras.Model", images: np.ndarray, labels: np.ndarray, views: str | None = None
) -> pd.DataFrame:
    """The accuracy on uint8 images (n, height, width, 3) with each corruption at each strength.

    That is the accuracy with the test-time `views`; no temperature changes it.

    A row each: `corruption`, `level` from 0, unchanged, to 5, `strength` in the corruption's own unit,
    `accuracy`, and the number of `images`.
    """
    from pipeline.core.prediction import predictor  # TensorFlow

    predict = predictor(model, views)

    def accuracy(corruption: Corruption | None = None, strength: float = 0) -> float:
        chunks = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
        changed = (corruption.function(chunk, strength) if corruption else chunk for chunk in chunks)
        predicted = np.concatenate([predict(chunk).argmax(axis=1) for chunk in changed])
        return float((predicted == labels).mean())

    unchanged, rows = accuracy(), []
    for name, corruption in CORRUPTIONS.items():
        rows.append((name, 0, float("nan"), unchanged))
        for level, strength in enumerate(corruption.strengths, 1):
            rows.append((name, level, strength, accuracy(corruption, strength)))
    table = pd.DataFrame(rows, columns=["corruption", "level", "strength", "accuracy"])
    return table.assign(images=len(images))


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
