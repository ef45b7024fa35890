"""Training on memory-mapped arrays: the order of the data, callbacks, and the same weights every time."""

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import read_arrays, write_arrays
from pipeline.core.backend import keras, tf
from pipeline.stages.train import keras_fit
from pipeline.stages.train.batches import Images, flips, training_batches, validation_batches
from tests.conftest import ROOT
from tests.keras_models import contrary, images, layers, listed, recipe

BEST = {"monitor": "val_loss", "restore_best_weights": True}
LAST = {"monitor": "val_loss", "restore_best_weights": False}
LEARNT = images(10, size=2)
CONTRARY = contrary(LEARNT)


def linear_model() -> keras.Sequential:
    return listed(layers.Flatten(), size=2)


def numbered(count: int) -> Images:
    """Images whose label is their number."""
    labels = np.arange(count)
    images = np.broadcast_to(labels[:, None, None, None], (count, 2, 2, 3)).astype(np.uint8)
    return Images(images, labels)


def order(seed: int, epoch: int) -> list[int]:
    batches = training_batches(numbered(10), 4, seed, tf.Variable(epoch, dtype=tf.int64))
    return [int(label) for _, labels in batches for label in labels]


def test_an_epoch_holds_every_image_once_with_its_label() -> None:
    batches = list(training_batches(numbered(10), 4, 0, tf.Variable(0, dtype=tf.int64)))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert sorted(int(label) for _, labels in batches for label in labels) == list(range(10))
    for pixels, labels in batches:
        assert pixels.dtype == tf.uint8
        assert np.array_equal(pixels[:, 0, 0, 0], labels)
    validation = validation_batches(numbered(7))
    assert [int(label) for _, labels in validation for label in labels] == list(range(7))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(one) for one in [list(range(10)), *orders]}) == 5
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = training_batches(numbered(10), 4, 0, epoch)
    for number in (0, 1, 0):
        epoch.assign(number)
        assert [int(label) for _, labels in batches for label in labels] == orders[number]


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_images_are_mirrored_in_the_epochs_that_flips_says(flip: str) -> None:
    data = images(50, size=5)
    for number in (0, 1):
        epoch = tf.Variable(number, dtype=tf.int64)
        plain, changed = (training_batches(data, 8, 0, epoch, how).unbatch() for how in (None, flip))
        order = [int(label) for _, label in training_batches(numbered(50), 8, 0, epoch).unbatch()]
        chosen = np.array(flips(50, 0, epoch, flip))[order]
        assert 10 < sum(chosen) < 40
        for (before, _), (after, _), mirrored in zip(plain, changed, chosen, strict=True):
            np.testing.assert_array_equal(after, before[:, ::-1] if mirrored else before)


def anonymous_memory() -> int:
    """The bytes of this process that are not pages of files."""
    [kilobytes] = re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def test_a_training_does_not_copy_its_images(tmp_path: Path) -> None:
    """Neither TensorFlow nor tf.data does, which optimizes a graph that holds them; and none for flips."""
    size, count = 96, 4_000
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    write_arrays(tmp_path / "some", {"images": np.repeat(pixels, count, 0), "labels": np.arange(count) % 2})
    data, settings = Images(**read_arrays(tmp_path / "some")), {"flip": "random", "batch_size": 100}
    found: list[int] = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: found.append(anonymous_memory()),  # noqa: ARG005
        on_test_batch_end=lambda batch, logs: found.append(anonymous_memory()),  # noqa: ARG005
    )
    model = listed(layers.GlobalMaxPooling2D(), size=size)
    before = anonymous_memory()
    keras_fit.fit(model, recipe(settings), data, data, 0, watch)
    assert max(found) - before < data.images.nbytes / 2


def test_fit_trains_on_the_batches_of_each_epoch() -> None:
    by_fit, by_hand = linear_model(), linear_model()
    by_hand.set_weights(by_fit.get_weights())
    keras_fit.fit(by_fit, recipe(), LEARNT, CONTRARY, seed=3)

    keras_fit.compile_model(by_hand, recipe())
    for number in (0, 1):
        epoch = tf.Variable(number, dtype=tf.int64)
        for pixels, labels in training_batches(LEARNT, 4, 3, epoch):
            by_hand.train_on_batch(pixels, labels)
    for fitted, expected in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        assert np.allclose(fitted, expected, atol=1e-6)


def test_fit_gives_a_value_and_prints_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit = keras_fit.fit(linear_model(), recipe(), LEARNT, CONTRARY, seed=0)
    names = {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert {name: len(values) for name, values in fit.history.items()} == dict.fromkeys(names, 2)
    assert min(fit.wall_seconds, fit.cpu_seconds) > 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("listed  epoch 1/2  ")
    assert last.startswith("listed  epoch 2/2  ")
    assert all(f"  {name} " in first for name in names)


@pytest.mark.parametrize(
    ("stopping", "epochs", "trained", "kept"),
    [(BEST, 9, 3, 0), (LAST, 9, 3, -1), (BEST, 2, 2, 0)],
    ids=["the best", "the last", "the best when the epochs run out first"],
)
def test_weights_of_the_best_epoch_are_kept_where_the_variant_says_so(
    stopping: dict[str, Any], epochs: int, trained: int, kept: int
) -> None:
    model, chosen = linear_model(), recipe({"epochs": epochs, "early_stopping": stopping | {"patience": 2}})
    losses = keras_fit.fit(model, chosen, LEARNT, CONTRARY, seed=0).history["val_loss"]
    assert len(losses) == trained
    assert losses == sorted(losses)
    loss = model.evaluate(CONTRARY.images, CONTRARY.labels, verbose=0)[0]
    assert loss == pytest.approx(losses[kept], abs=1e-6)


TRAIN_SEEDS = """
import pathlib, sys
from pipeline.core import hardware, keras_file
from pipeline.stages.train import keras_fit
from pipeline.stages.train.fast_twin import Twin
from tests import keras_models

hardware.make_deterministic(0, threads=2)
data, tiny = keras_models.images(48), keras_models.recipe({"batch_size": 16})
for seed in map(int, sys.argv[3:]):
    model = getattr(keras_models, sys.argv[2] + "_model")()
    twin = Twin(model, "float32")
    keras_fit.fit(twin, tiny, data, data, seed)
    model.set_weights(twin.get_weights())
    keras_file.save(model, pathlib.Path(sys.argv[1]) / f"{seed}.keras")
"""


@pytest.mark.parametrize("model", ["random", pytest.param("residual", marks=pytest.mark.faults)])
def test_the_same_seed_gives_the_same_file_in_another_process(model: str, tmp_path: Path) -> None:
    """Of two processes that each train seed 0 on two threads, one of them seed 1 as well."""
    processes = []
    for name, seeds in (("first", ["0", "1"]), ("second", ["0"])):
        folder = tmp_path / name
        command = [sys.executable, "-c", TRAIN_SEEDS, str(folder), model, *seeds]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in processes] == [0, 0]
    first, second, other = (
        (tmp_path / file).read_bytes() for file in ("first/0.keras", "second/0.keras", "first/1.keras")
    )
    assert first == second != other


@pytest.mark.skipif(platform.machine() != "x86_64", reason="set for x86 only")
def test_one_dnn_is_on_even_without_avx_512() -> None:
    """A training without it takes 1.3 to 2.6 times as long on a CPU that has only AVX2."""
    from tensorflow.python.framework import test_util  # after the backend, which decides

    assert test_util.IsMklEnabled()
