"""Checkpoints: a training that was interrupted ends as one that was not, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.design import optimizers
from pipeline.learning.backend import keras
from pipeline.learning.recipe import Recipe
from pipeline.shared.lock import locked
from pipeline.shared.paths import CHECKPOINTS
from pipeline.shared.trained import Trained, remove_other_checkpoints
from pipeline.training import fitting
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.fitting import Fit
from pipeline.training.twin import Twin
from tests.keras_models import (
    contrary,
    images,
    layers,
    listed,
    optimizer,
    random_model,
    recipe,
    residual_model,
)

EPOCHS = 7
LEARNT = images(40)
CONTRARY = contrary(LEARNT)  # whatever is learnt is wrong on it
STOPPING = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}


def resumable_recipe(**changes: Any) -> Recipe:
    return recipe(**{"optimizer": optimizer("RMSprop"), "batch_size": 16, "epochs": EPOCHS} | changes)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the first batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        if epoch == self.epoch:
            raise KeyboardInterrupt


def fit(
    chosen: Recipe,
    kept: Checkpoint | None = None,
    interrupt: int = -1,
    make: Callable[[], keras.Model] = random_model,
) -> tuple[Fit, list[np.ndarray]]:
    twin = Twin(make(), "float32", label_smoothing=chosen.label_smoothing)
    done = fitting.fit(twin, chosen, LEARNT, CONTRARY, 0, Interrupt(interrupt), checkpoint=kept)
    return done, twin.get_weights()


def assert_resumes(chosen: Recipe, make: Callable[[], keras.Model], folder: Path, *interrupts: int) -> Fit:
    """Interrupted before these epochs, a training ends as one that was not, and then trains no more."""
    kept = Checkpoint(folder / "kept.npz", "key")
    whole, expected = fit(chosen, make=make)
    for epoch in interrupts:
        with pytest.raises(KeyboardInterrupt):
            fit(chosen, kept, epoch, make)
    for _ in ("resumed", "finished"):
        again, weights = fit(chosen, kept, make=make)
        assert again.history == whole.history
        assert again.cpu_seconds > 0
        assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))
    assert [path.name for path in folder.iterdir()] == ["kept.npz"]
    return whole


CASES: dict[str, dict[str, Any]] = {
    "to the last epoch": {"label_smoothing": 0.1},
    "stopped early, the best weights restored": {"early_stopping": STOPPING},
    "with a falling learning rate": {"reduce_learning_rate": REDUCING, "early_stopping": STOPPING},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_an_interrupted_training_ends_as_one_that_was_not(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = assert_resumes(resumable_recipe(**changes), random_model, tmp_path, 0, 2, 3)
    epochs = len(whole.history["loss"])
    assert 3 < epochs < EPOCHS if "early_stopping" in changes else epochs == EPOCHS
    lines = [line for line in capsys.readouterr().out.splitlines() if "resuming" in line]
    assert lines == [f"listed: resuming after epoch {number}" for number in (2, 3, epochs)]


def test_a_residual_training_that_was_interrupted_twice_ends_as_one_that_was_not(tmp_path: Path) -> None:
    assert_resumes(resumable_recipe(epochs=4), residual_model, tmp_path, 1, 3)


SCHEDULE = keras.optimizers.schedules.CosineDecay(0.01, 6)
OPTIMIZERS = {
    **{
        kind.__name__: keras.saving.serialize_keras_object(kind(0.01))
        for kind in optimizers.OPTIMIZERS.values()
    },
    "EMA": optimizer("SGD", momentum=0.9, nesterov=True, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": optimizer("AdamW", gradient_accumulation_steps=2, clipnorm=1.0, weight_decay=0.01),
    "schedule": optimizer("SGD", learning_rate=SCHEDULE),
}


@pytest.mark.parametrize("chosen", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_resumes_exactly(chosen: dict[str, Any], tmp_path: Path) -> None:
    recipe = resumable_recipe(optimizer=chosen, epochs=2)
    assert_resumes(recipe, lambda: listed(layers.Flatten()), tmp_path, 1)


def test_checkpoints_of_removed_variants_are_removed_unless_they_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here-0", "gone-0", "running-0"):
        Checkpoint(Trained(name[:-2], 0).checkpoint, "key").write({"model-0": np.zeros(1)}, {})
    with locked("train-running-0"):
        assert remove_other_checkpoints([Trained("here", 0)]) == ["gone-0"]
    assert sorted(path.name for path in CHECKPOINTS.iterdir()) == ["here-0.npz", "running-0.npz"]


def test_a_checkpoint_with_another_key_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    Checkpoint(path, "one").write({"model-0": np.zeros(1)}, {})
    assert Checkpoint(path, "other").read() is None
    assert not path.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_checkpoint_is_ignored_with_a_line(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Checkpoint(tmp_path / "kept.npz", "key")
    kept.write({"model-0": np.ones(100)}, {"epochs": 1})
    content = bytearray(kept.path.read_bytes())
    if damage == "flip":
        content[300] ^= 1
    damaged = {"flip": bytes(content), "cut": bytes(content[:-30]), "empty": b"", "text": b"text"}
    kept.path.write_bytes(damaged[damage])
    assert kept.read() is None
    assert capsys.readouterr().out.startswith("kept: ignoring a damaged checkpoint: ")
    assert not kept.path.exists()


def test_a_loss_that_is_not_a_number_is_kept_as_it_is(tmp_path: Path) -> None:
    diverging = resumable_recipe(optimizer=optimizer("SGD", 1e30))
    kept = Checkpoint(tmp_path / "kept.npz", "key")
    whole, _ = fit(diverging, kept)
    again, _ = fit(diverging, kept)
    assert whole.divergence is not None
    assert again.divergence == whole.divergence
    assert json.dumps(again.history) == json.dumps(whole.history)
