"""One variant as the documents' notebooks train it, for comparison.

    python -m benchmarks.notebook VARIANT EPOCHS FOLDER

Float images in memory, one-hot labels, `model.fit(x, y, batch_size=..., validation_data=...)` and
`model.evaluate` with everything at its default. Reads FOLDER/{train,validation,test}/*.npy and the
variant's layers, optimizer and batch size from the pipeline, so that both train the same network.
"""

import argparse
from pathlib import Path

import numpy as np

from pipeline.core.backend import keras
from pipeline.core.variant import Variant
from pipeline.params import Params
from pipeline.stages.recipes import networks

CLASSES = 10


def main() -> None:
    """Read, train and score, as the notebooks do from top to bottom."""
    parser = argparse.ArgumentParser(description="Train one variant as a notebook does.")
    parser.add_argument("variant")
    parser.add_argument("epochs", type=int)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    blocks = Params.read().blocks.items()
    variant = next(block for key, block in blocks if key.endswith(f".{arguments.variant}"))
    model = fit(variant, arguments.epochs, arguments.folder)
    print(model.evaluate(*read(arguments.folder / "test")))


def read(part: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 (n, 32, 32, 3) from 0 to 1, and one-hot labels (n, 10)."""
    images, labels = np.load(part / "images.npy"), np.load(part / "labels.npy")
    return images.astype("float32") / 255.0, keras.utils.to_categorical(labels, CLASSES)


def fit(
    variant: Variant, epochs: int, folder: Path, callbacks: list[keras.callbacks.Callback] | None = None
) -> keras.Model:
    """Build, compile and fit as the notebooks do."""
    x, y = read(folder / "train")
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *getattr(networks, variant.network.name)(**variant.network.arguments),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer=variant.optimizer.name, metrics=["accuracy"])
    model.fit(
        x,
        y,
        batch_size=variant.batch_size,
        epochs=epochs,
        validation_data=read(folder / "validation"),
        callbacks=callbacks,
    )
    return model


if __name__ == "__main__":
    main()
