"""Checkpoints: a training that was interrupted ends as one that was not, bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.backend import keras
from pipeline.core.recipe import Recipe
from pipeline.stages.recipes import optimizer_config
from pipeline.stages.train import keras_fit, training
from pipeline.stages.train.augmentation import Augmentation
from pipeline.stages.train.checkpoint import Checkpoint
from pipeline.stages.train.keras_fit import Fit
from pipeline.support.locks import locked
from pipeline.support.model_files import ModelFiles, remove_leftovers
from pipeline.support.paths import CHECKPOINTS
from tests.keras_models import DAMAGES, Interrupt, contrary, images, layers, listed, optimizer, recipe
from tests.keras_models import random_model as random
from tests.keras_models import residual_model as residual

LEARNT = images(40)
CONTRARY = contrary(LEARNT)  # whatever is learnt is wrong on it
STOPPING = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}
Make = Callable[[], keras.Model]


def linear() -> keras.Sequential:
    return listed(layers.Flatten())


def normalized() -> keras.Sequential:
    keras.utils.set_random_seed(0)  # layers draw their seeds when they are made
    return listed(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dropout(0.1))


def augmented() -> keras.Sequential:
    """Random layers before the others, as `augmentation` in params.yaml adds them."""
    return listed(Augmentation([layers.RandomRotation(0.2), layers.RandomErasing()]), layers.Flatten())


class CopyOf(keras.callbacks.Callback):
    """Copies the checkpoint of the first epoch."""

    def __init__(self, checkpoint: Checkpoint, copy: Checkpoint) -> None:
        super().__init__()
        self.paths = checkpoint.path, copy.path

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        if epoch == 1:
            shutil.copy(*self.paths)


def fit(
    make: Make, chosen: Recipe, kept: Checkpoint | None, callback: keras.callbacks.Callback | None = None
) -> tuple[Fit, Any]:
    twin = training.make_twin(make(), chosen, LEARNT)
    done = keras_fit.fit(twin, chosen, LEARNT, CONTRARY, 0, callback or Interrupt(), checkpoint=kept)
    return done, twin.get_weights()


CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "to the last epoch": (random, {"label_smoothing": 0.1}),
    "with a falling rate, stopped early": (
        random,
        {"reduce_learning_rate": REDUCING, "early_stopping": STOPPING},
    ),
    "of branches": (residual, {}),
    "with frozen layers at first": (
        normalized,
        {
            "start": {"sha256": "0" * 64, "frozen_epochs": 3},
            "reduce_learning_rate": REDUCING,
            "early_stopping": STOPPING,
        },
    ),
    "of random layers": (augmented, {"class_weight": "balanced", "label_smoothing": 0.1}),
}


@pytest.mark.parametrize(("make", "changes"), CASES.values(), ids=CASES)
def test_an_interrupted_training_ends_as_one_that_was_not_and_then_trains_no_more(
    make: Make, changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = recipe({"batch_size": 16, "epochs": 7} | changes, optimizer=optimizer("RMSprop"))
    kept = Checkpoint(tmp_path / "kept.npz", "key")
    whole, expected = fit(make, chosen, None)
    epochs = len(whole.history["loss"])
    assert 3 < epochs < 7 if "early_stopping" in changes else epochs == 7
    for epoch in (2, 3, 4):  # with frozen layers, these are before, at and after the change
        with pytest.raises(KeyboardInterrupt):
            fit(make, chosen, kept, Interrupt(epoch))
    for _ in ("resumed", "finished"):
        again, weights = fit(make, chosen, kept)
        assert again.history == whole.history
        assert again.cpu_seconds > 0
        assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]
    lines = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if "resuming" in line]
    assert lines == [f"resuming after epoch {number}" for number in (2, 3, 4, epochs)]


SCHEDULE = keras.optimizers.schedules.CosineDecay(0.01, 6)
KINDS = optimizer_config.OPTIMIZERS.values()
OPTIMIZERS = {kind.__name__: keras.saving.serialize_keras_object(kind(0.01)) for kind in KINDS} | {
    "EMA": optimizer("SGD", momentum=0.9, nesterov=True, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": optimizer("AdamW", gradient_accumulation_steps=2, clipnorm=1.0, weight_decay=0.01),
    "schedule": optimizer("SGD", learning_rate=SCHEDULE),
}


@pytest.mark.parametrize("chosen", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_resumes_exactly(
    chosen: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = recipe({"batch_size": 16}, optimizer=chosen)
    last, first = (Checkpoint(tmp_path / name, "key") for name in ("last.npz", "first.npz"))
    whole, expected = fit(linear, made, last, CopyOf(last, first))
    resumed, weights = fit(linear, made, first)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert resumed.history == whole.history
    assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))


def test_checkpoints_of_removed_variants_are_removed_unless_they_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here-0", "gone-0", "running-0"):
        Checkpoint(ModelFiles(name[:-2], 0).checkpoint, "key").write({"model-0": np.zeros(1)}, {})
    with locked("train-running-0"):
        assert remove_leftovers([ModelFiles("here", 0)], []) == [ModelFiles("gone", 0).checkpoint]
    assert sorted(path.name for path in CHECKPOINTS.iterdir()) == ["here-0.npz", "running-0.npz"]


def test_a_checkpoint_with_another_key_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    Checkpoint(path, "one").write({"model-0": np.zeros(1)}, {})
    assert Checkpoint(path, "other").read() is None
    assert not path.exists()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_ignored_with_a_line(
    damage: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Checkpoint(tmp_path / "kept.npz", "key")
    kept.write({"model-0": np.ones(100)}, {"epochs": 1})
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    assert kept.read() is None
    assert capsys.readouterr().out.startswith("kept: removing a damaged checkpoint: ")
    assert not kept.path.exists()


def test_a_loss_that_is_not_a_number_is_kept_as_it_is(tmp_path: Path) -> None:
    diverging, kept = recipe(optimizer=optimizer("SGD", 1e30)), Checkpoint(tmp_path / "kept.npz", "key")
    (whole, _), (again, _) = (fit(random, diverging, kept) for _ in range(2))
    assert whole.divergence is not None
    assert again.divergence == whole.divergence
    assert json.dumps(again.history) == json.dumps(whole.history)
