"""Checkpoints: a training that was interrupted ends as one that was not, bit for bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.learning import checkpoint, training
from pipeline.learning.backend import keras
from pipeline.learning.checkpoint import Checkpoint
from pipeline.learning.training import Fit, Images
from pipeline.paths import CHECKPOINTS
from pipeline.running.lock import locked
from pipeline.settings.hyperparameters import Variant
from tests import test_training

EPOCHS = 7
RNG = np.random.default_rng(0)
LEARNT = Images(RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2)
CONTRARY = Images(LEARNT.images, 1 - LEARNT.labels)  # whatever is learnt is wrong on it
STOPPING = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}


def variant(**changes: Any) -> Variant:
    optimizer = {"name": "rmsprop", "learning_rate": 0.01}
    return test_training.variant(**({"optimizer": optimizer, "batch_size": 16, "epochs": EPOCHS} | changes))


def random_model() -> keras.Sequential:
    """A model in which everything random or remembered that our networks have happens."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ],
        name="random",
    )


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the first batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        if epoch == self.epoch:
            raise KeyboardInterrupt


def fit(chosen: Variant, kept: Checkpoint | None = None, interrupt: int = -1) -> tuple[Fit, list[np.ndarray]]:
    model = random_model()
    done = training.fit(model, chosen, LEARNT, CONTRARY, 0, Interrupt(interrupt), checkpoint=kept)
    return done, model.get_weights()


CASES = {
    "to the last epoch": {},
    "stopped early, the best weights restored": {"early_stopping": STOPPING},
    "with a falling learning rate": {"reduce_learning_rate": REDUCING, "early_stopping": STOPPING},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    chosen = variant(**changes)
    whole, expected = fit(chosen)
    epochs = len(whole.history["loss"])
    assert epochs == EPOCHS if not changes else epochs < EPOCHS
    for interrupted in (0, 2, epochs - 1):
        kept = Checkpoint(tmp_path / str(interrupted), "key")
        with pytest.raises(KeyboardInterrupt):
            fit(chosen, kept, interrupted)
        resumed, weights = fit(chosen, kept)
        assert resumed.history == whole.history
        assert all(np.array_equal(one, other) for one, other in zip(weights, expected, strict=True))


def test_a_training_that_was_interrupted_twice_ends_as_one_that_was_not(tmp_path: Path) -> None:
    chosen, kept = variant(**CASES["with a falling learning rate"]), Checkpoint(tmp_path, "key")
    whole, expected = fit(chosen)
    for interrupted in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(chosen, kept, interrupted)
    resumed, weights = fit(chosen, kept)
    assert resumed.history == whole.history
    assert all(np.array_equal(one, other) for one, other in zip(weights, expected, strict=True))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_training_that_had_ended_trains_no_more(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Checkpoint(tmp_path / "kept", "key")
    whole, expected = fit(variant(**changes), kept)
    epochs = len(whole.history["loss"])
    capsys.readouterr()
    again, weights = fit(variant(**changes), kept)
    assert capsys.readouterr().out == f"random: goes on after epoch {epochs}\n"
    assert again.history == whole.history
    assert all(np.array_equal(one, other) for one, other in zip(weights, expected, strict=True))


def test_seconds_are_those_of_all_parts(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "kept", "key")
    first, _ = fit(variant(), kept)
    again, _ = fit(variant(), kept)
    assert again.cpu_seconds > 0.9 * first.cpu_seconds > 0


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "kept", "key")
    fit(variant(epochs=3), kept)
    assert [path.name for path in kept.folder.iterdir()] == ["epoch-00003"]
    checkpoint.remove(kept.folder)
    checkpoint.remove(kept.folder)
    assert not kept.folder.exists()


def test_checkpoints_of_variants_that_are_gone_are_removed_unless_they_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here-0", "gone-0", "running-0"):
        Checkpoint(CHECKPOINTS / name, "key").write(1, {"model-0": np.zeros(1)}, {})
    with locked("train-running-0"):
        assert checkpoint.remove_others({"here-0"}) == ["gone-0"]
    assert sorted(folder.name for folder in CHECKPOINTS.iterdir()) == ["here-0", "running-0"]


def test_a_checkpoint_of_another_key_is_not_taken_up_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    fit(variant(epochs=2), Checkpoint(folder, "one"))
    assert Checkpoint(folder, "other").read() is None
    assert not folder.exists()


def test_a_damaged_checkpoint_is_passed_over_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, kept = variant(epochs=3), Checkpoint(tmp_path / "kept", "key")
    whole, expected = fit(chosen, kept)
    [newest] = kept.folder.iterdir()
    shutil.copytree(newest, tmp_path / "whole")
    for damage in (flip_a_weight, cut_the_manifest, lose_an_array):
        shutil.rmtree(kept.folder)
        shutil.copytree(tmp_path / "whole", newest)
        damage(newest)
        capsys.readouterr()
        again, weights = fit(chosen, kept)
        assert capsys.readouterr().out.startswith("kept: passes over a checkpoint: ")
        assert again.history == whole.history
        assert all(np.array_equal(one, other) for one, other in zip(weights, expected, strict=True))


def flip_a_weight(folder: Path) -> None:
    path = folder / "model-0.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])


def lose_an_array(folder: Path) -> None:
    (folder / "optimizer-0.npy").unlink()


def test_a_checkpoint_that_was_being_written_is_not_seen(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "kept", "key")
    fit(variant(epochs=2), kept)
    shutil.copytree(kept.folder / "epoch-00002", kept.folder / "epoch-00003.partial")
    found = kept.read()
    assert found is not None
    assert found[1]["epochs"] == 2


def test_a_loss_that_is_no_number_is_kept_as_it_is(tmp_path: Path) -> None:
    diverging = variant(optimizer={"name": "sgd", "learning_rate": 1e30})
    kept = Checkpoint(tmp_path / "kept", "key")
    whole, _ = fit(diverging, kept)
    again, _ = fit(diverging, kept)
    assert whole.divergence is not None
    assert again.divergence == whole.divergence
    assert json.dumps(again.history) == json.dumps(whole.history)
