"""The networks, a function each. `model_config` adds input, rescaling and softmax layers.

A function returns its hidden layers as a list, or takes a tensor `inputs` and returns one. Its other
parameters are keys of `network` in params.yaml. docs/variants.md names the document of each network.
"""

from collections.abc import Sequence

from pipeline.core.backend import keras
from pipeline.stages.recipes import applications
from pipeline.stages.train.augmentation import Cutout, RandomShift

layers = keras.layers


def translate() -> list[keras.Layer]:
    """Shifted images and wide kernels: two convolutions, 13,882 parameters."""
    return [
        layers.RandomTranslation(0.1, 0.1),
        _conv(16, 5),
        layers.MaxPooling2D(2),
        _conv(16, 4),
        layers.MaxPooling2D(4),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
    ]


def shallow() -> list[keras.Layer]:
    """A single convolution, 66,170 parameters."""
    return [*_conv_pool(16), layers.Flatten(), layers.Dense(16, activation="relu")]


def augmented() -> list[keras.Layer]:
    """Flips, rotation and zoom before three convolutions, 89,834 parameters."""
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomFlip("vertical"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        *_conv_pool(16, 32, 64),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
    ]


def deep_dropout() -> list[keras.Layer]:
    """Five convolutions and a wide layer with dropout, 666,026 parameters."""
    return [
        *_conv_pool(16, 32, 64, 128, 256),
        layers.Flatten(),
        layers.Dense(1024, activation="relu"),
        layers.Dropout(0.5),
    ]


def deep_flips() -> list[keras.Layer]:
    """Flips before the five convolutions, 529,322 parameters."""
    return [
        layers.RandomFlip("vertical"),
        layers.RandomFlip("horizontal"),
        *_conv_pool(16, 32, 64, 128, 256),
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
    ]


def model_s() -> list[keras.Layer]:
    """Three pairs of convolutions with batch normalization and dropout, 815,914 parameters."""
    return _model_s()


def model_s_plus() -> list[keras.Layer]:
    """`model_s` with flips and shifts before it and L2 on its hidden kernels."""
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomTranslation(0.1, 0.1),
        *_model_s(keras.regularizers.L2(1e-4)),
    ]


def vgg3() -> list[keras.Layer]:
    """Three pairs of convolutions, 550,570 parameters."""
    hidden = layers.Dense(128, activation="relu")
    return [*_pairs(normalized=False), layers.Flatten(), layers.Dropout(0.2), hidden]


def deep_gap() -> list[keras.Layer]:
    """Five convolutions averaged over space, 1,638,698 parameters."""
    return [
        *_conv_pool(32, 64, 128, 256, 512),
        layers.GlobalAveragePooling2D(),
        layers.Dense(128, activation="relu"),
        layers.Dense(32, activation="relu"),
    ]


def batchnorm() -> list[keras.Layer]:
    """Three convolutions normalized before their activation, 359,242 parameters."""
    blocks = [
        layer
        for filters, kernel in ((32, 5), (64, 3), (128, 3))
        for layer in (
            layers.Conv2D(filters, kernel, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2, padding="same"),
        )
    ]
    return [*blocks, layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.3)]


def baseline() -> list[keras.Layer]:
    """Two unpadded convolutions, 225,610 parameters."""
    return [
        layers.Conv2D(32, 4, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(32, 4, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
    ]


def speedrun(widths: Sequence[int] = (64, 128, 128), shift: int = 2, cutout: int = 0) -> list[keras.Layer]:
    """A whitening convolution and three normalized pairs, after random shifts and holes in the image.

    As in airbench94 (Jordan, 94% on CIFAR-10 in 3.29 Seconds, 2024). `whitening` and `identity_kernels` in
    params.yaml set its first weights.
    """
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's channels
    scales = [1 / sd for sd in deviation]
    offsets = [-m / sd for m, sd in zip(mean, deviation, strict=True)]
    return [
        layers.Rescaling(scales, offsets),
        *([RandomShift(shift)] if shift else []),
        *([Cutout(cutout)] if cutout else []),
        layers.Conv2D(24, 2, name="whitening"),
        layers.Activation("gelu"),
        *(layer for filters in widths for layer in _speedrun_group(filters)),
        layers.MaxPooling2D(3),
        layers.Flatten(),
        layers.Rescaling(1 / 9),
    ]


def application(
    inputs: keras.KerasTensor,
    model: str = "MobileNetV3Small",
    dropout: float = 0.2,
    alpha: float | None = None,
) -> keras.KerasTensor:
    """A network of keras.applications, which `start` gives its weights; `alpha` widens a MobileNet."""
    features = applications.features(inputs, model, alpha)
    return layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(features))


def _speedrun_group(filters: int) -> list[keras.Layer]:
    def convolution() -> keras.Layer:
        uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        return layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=uniform)

    def normalization() -> keras.Layer:
        return layers.BatchNormalization(momentum=0.6, epsilon=1e-12, scale=False)

    first = [convolution(), layers.MaxPooling2D(2), normalization(), layers.Activation("gelu")]
    return [*first, convolution(), normalization(), layers.Activation("gelu")]


def _conv(filters: int, kernel: int = 3, regularizer: keras.Regularizer | None = None) -> keras.Layer:
    return layers.Conv2D(filters, kernel, padding="same", activation="relu", kernel_regularizer=regularizer)


def _conv_pool(*filters: int) -> list[keras.Layer]:
    return [layer for n in filters for layer in (_conv(n), layers.MaxPooling2D(2))]


def _pairs(normalized: bool, regularizer: keras.Regularizer | None = None) -> list[keras.Layer]:
    stack: list[keras.Layer] = []
    for filters in (32, 64, 128):
        for _ in range(2):
            stack.append(_conv(filters, regularizer=regularizer))
            stack += [layers.BatchNormalization()] if normalized else []
        stack.append(layers.MaxPooling2D(2))
    return stack


def _model_s(regularizer: keras.Regularizer | None = None) -> list[keras.Layer]:
    hidden = layers.Dense(256, activation="relu", kernel_regularizer=regularizer)
    stack = _pairs(normalized=True, regularizer=regularizer)
    return [*stack, layers.Flatten(), layers.Dropout(0.5), hidden, layers.Dropout(0.5)]
