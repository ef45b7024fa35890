"""The weights that a training starts with, where they are not random: identity and whitening kernels."""

from typing import Any

import numpy as np

from pipeline.core.backend import keras
from pipeline.core.prediction import batch_size

WHITENING = "whitening"  # the name of the convolution that whitens
# Added to the variances. The paper's 5e-4 amplifies the noise of JPEG (docs/results.md).
EPSILON = 5e-2


def set_identity(model: keras.Model) -> None:
    """Let all convolutions but `whitening` pass their first channels on (Zagoruyko & Komodakis, 2017)."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.name != WHITENING:
            kernel = np.array(layer.kernel)
            height, width, channels, filters = kernel.shape
            for channel in range(min(channels, filters)):
                kernel[..., channel] = 0
                kernel[height // 2, width // 2, channel, channel] = 1
            layer.kernel.assign(kernel)


def set_whitening(model: keras.Model, images: np.ndarray) -> None:
    """Set the kernel of the convolution named `whitening` from uint8 images (n, height, width, channels).

    It gives patches unit variance in each direction: one filter for each, and one for its negative.
    """
    layer = model.get_layer(WHITENING)
    before = model.layers[: model.layers.index(layer)]
    total: Any = 0
    count = 0
    size = batch_size(images)  # the patches of all would take gigabytes
    for start in range(0, len(images), size):
        features = images[start : start + size]
        for earlier in before:
            features = earlier(features)
        rows = patches(np.asarray(features, np.float64), *layer.kernel_size)
        total += np.einsum("ni,nj->ij", rows, rows)  # the same with any number of threads
        count += len(rows)
    variances, directions = np.linalg.eigh(total / count)
    kernels = directions / np.sqrt(variances + EPSILON)
    layer.kernel.assign(np.concatenate([kernels, -kernels], axis=1).reshape(layer.kernel.shape))
    layer.bias.assign(np.zeros(layer.bias.shape))


def patches(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """All patches of images (n, rows, columns, channels), each a row with its values in a kernel's order."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(1, 2))
    return np.moveaxis(windows, 3, -1).reshape(-1, height * width * images.shape[-1])
