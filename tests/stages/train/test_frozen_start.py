"""Two phases of a training that starts with weights: the last layer alone, then all layers."""

from typing import Any

import numpy as np
import pytest

from pipeline.core.backend import keras
from pipeline.stages.train import keras_fit, training
from tests.keras_models import contrary, images, layers, listed, optimizer, recipe

LEARNT = images(40)
FROZEN = 2
STOPPING = {"monitor": "val_loss", "patience": 0, "restore_best_weights": True}
START = {"sha256": "0" * 64, "frozen_epochs": FROZEN, "learning_rate_factor": 0.5}


def normalized() -> keras.Model:
    keras.utils.set_random_seed(0)  # layers draw their seeds when they are made
    return listed(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dropout(0.1))


class Watch(keras.callbacks.Callback):
    """Copies weights, learning rate and steps at the start of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[list[np.ndarray]] = []
        self.rates: list[float] = []
        self.steps: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.weights.append(self.model.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.steps.append(int(self.model.optimizer.iterations))


def fit(precision: str = "float32", **settings: Any) -> tuple[Watch, list[np.ndarray], keras_fit.Fit]:
    chosen = recipe(
        {"batch_size": 8, "epochs": 4, "start": START} | settings,
        optimizer=optimizer("RMSprop", 0.01),
        precision=precision,
    )
    watch, twin = Watch(), training.make_twin(normalized(), chosen, LEARNT)
    done = keras_fit.fit(twin, chosen, LEARNT, contrary(LEARNT), 0, watch)
    return watch, twin.get_weights(), done


def changed(before: list[np.ndarray], after: list[np.ndarray]) -> set[int]:
    """The numbers of the weights that differ."""
    pairs = enumerate(zip(before, after, strict=True))
    return {number for number, (old, new) in pairs if not np.array_equal(old, new)}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_last_layer_trains_alone_and_then_all_at_a_lower_rate_with_a_new_optimizer(
    precision: str,
) -> None:
    watch, after, _ = fit(precision, class_weight="balanced", label_smoothing=0.1)
    count = len(after)
    names = [weight.path.rpartition("/")[2] for weight in normalized().weights]
    statistics = {number for number, name in enumerate(names) if name.startswith("moving")}
    assert len(statistics) == 2
    assert changed(watch.weights[0], watch.weights[FROZEN]) == {count - 2, count - 1}
    assert changed(watch.weights[FROZEN], after) == set(range(count)) - statistics
    assert watch.rates == pytest.approx([0.01, 0.01, 0.005, 0.005])
    assert watch.steps == [0, 5, 0, 5]


def test_without_frozen_epochs_all_layers_train_at_once_at_the_full_rate() -> None:
    watch, _, _ = fit(start=START | {"frozen_epochs": 0}, epochs=2)
    assert len(changed(watch.weights[0], watch.weights[1])) == len(watch.weights[0]) - 2
    assert watch.rates == pytest.approx([0.01, 0.01])


def test_the_best_epoch_is_one_in_which_all_layers_train() -> None:
    watch, after, done = fit(early_stopping=STOPPING, epochs=9)
    losses = done.history["val_loss"]
    best = FROZEN + int(np.argmin(losses[FROZEN:]))
    assert losses[1] < losses[best]
    assert len(losses) == best + 2
    assert changed(watch.weights[best + 1], after) == set()


def test_with_the_last_layer_alone_the_best_epoch_is_looked_for_in_all() -> None:
    watch, after, done = fit(start=START | {"frozen_epochs": 9}, early_stopping=STOPPING, epochs=9)
    best = int(np.argmin(done.history["val_loss"]))
    assert len(done.history["val_loss"]) == best + 2
    assert changed(watch.weights[best + 1], after) == set()
    assert len(changed(watch.weights[0], after)) == 2
