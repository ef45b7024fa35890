"""Training on arrays in memory: the order of the data, callbacks, and the same weights every time."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.learning.backend import keras, tf
from pipeline.shared.arrays import digest_of
from pipeline.training import fitting
from pipeline.training.fitting import Images
from tests.keras_models import contrary, images, layers, listed, optimizer, recipe

ROOT = Path(__file__).parent.parent
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
    batches = fitting.training_batches(numbered(10), 4, seed, tf.Variable(epoch, dtype=tf.int64))
    return [int(label) for _, labels in batches for label in labels]


def test_an_epoch_holds_every_image_once_with_its_label() -> None:
    batches = list(fitting.training_batches(numbered(10), 4, 0, tf.Variable(0, dtype=tf.int64)))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert sorted(int(label) for _, labels in batches for label in labels) == list(range(10))
    for pixels, labels in batches:
        assert pixels.dtype == tf.uint8
        assert np.array_equal(pixels[:, 0, 0, 0], labels)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(0, 0) == order(0, 0)
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(one) for one in orders}) == 4
    assert list(range(10)) not in orders


def test_order_follows_the_epoch_variable() -> None:
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = fitting.training_batches(numbered(10), 4, 0, epoch)
    for number in (0, 1, 0):
        epoch.assign(number)
        assert [int(label) for _, labels in batches for label in labels] == order(0, number)


@pytest.mark.parametrize(
    ("training_images", "validation_images", "smallest"), [(8, 500, 4), (9, 500, 1), (8, 503, 3)]
)
def test_smallest_batch_is_the_last_of_training_or_validation(
    training_images: int, validation_images: int, smallest: int
) -> None:
    assert fitting.smallest_batch(4, numbered(training_images), numbered(validation_images)) == smallest


def test_validation_batches_hold_all_images_in_order() -> None:
    batches = fitting.validation_batches(numbered(7))
    assert [int(label) for _, labels in batches for label in labels] == list(range(7))


def test_fit_trains_on_the_batches_of_each_epoch() -> None:
    by_fit, by_hand = linear_model(), linear_model()
    by_hand.set_weights(by_fit.get_weights())
    fitting.fit(by_fit, recipe(), LEARNT, CONTRARY, seed=3)

    fitting.compile_model(by_hand, recipe())
    for number in (0, 1):
        epoch = tf.Variable(number, dtype=tf.int64)
        for pixels, labels in fitting.training_batches(LEARNT, 4, 3, epoch):
            by_hand.train_on_batch(pixels, labels)
    for fitted, expected in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        assert np.allclose(fitted, expected, atol=1e-6)


def test_fit_traces_each_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    for name in ("train_step", "test_step"):
        step = getattr(keras.Sequential, name)

        def traced_step(model: keras.Model, data: Any, name: str = name, step: Any = step) -> Any:
            traced.append(name)
            return step(model, data)

        monkeypatch.setattr(keras.Sequential, name, traced_step)
    fitting.fit(linear_model(), recipe(), LEARNT, CONTRARY, seed=0)
    assert sorted(traced) == ["test_step", "train_step"]


def test_fit_gives_a_value_an_epoch_and_the_time() -> None:
    fit = fitting.fit(linear_model(), recipe(epochs=3), LEARNT, CONTRARY, seed=0)
    assert {name: len(values) for name, values in fit.history.items()} == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 3
    )
    assert fit.wall_seconds > 0
    assert fit.cpu_seconds > 0


def test_first_takes_the_first_images_or_all() -> None:
    assert numbered(10).first(3).labels.tolist() == [0, 1, 2]
    assert len(numbered(10).first(3).images) == 3
    assert len(numbered(10).first(None).labels) == 10


@pytest.mark.parametrize(("stopping", "kept"), [(BEST, 0), (LAST, -1)])
def test_weights_of_the_best_epoch_are_kept_where_the_variant_says_so(
    stopping: dict[str, Any],
    kept: int,
) -> None:
    model = linear_model()
    chosen = recipe(epochs=9, early_stopping=stopping | {"patience": 2})
    history = fitting.fit(model, chosen, LEARNT, CONTRARY, seed=0).history
    assert len(history["val_loss"]) == 3
    assert history["val_loss"] == sorted(history["val_loss"])
    loss = model.evaluate(CONTRARY.images, CONTRARY.labels, verbose=0)[0]
    assert loss == pytest.approx(history["val_loss"][kept], abs=1e-6)


def test_best_weights_are_kept_when_the_epochs_run_out_first() -> None:
    model = linear_model()
    chosen = recipe(epochs=2, early_stopping=BEST | {"patience": 5})
    history = fitting.fit(model, chosen, LEARNT, CONTRARY, seed=0).history
    assert len(history["val_loss"]) == 2
    loss = model.evaluate(CONTRARY.images, CONTRARY.labels, verbose=0)[0]
    assert loss == pytest.approx(min(history["val_loss"]), abs=1e-6)


def test_learning_rate_is_lowered_before_stopping_is_considered() -> None:
    chosen = recipe(
        epochs=4,
        reduce_learning_rate={"monitor": "val_loss", "factor": 0.5, "patience": 1},
        early_stopping=LAST | {"patience": 3},
    )
    names = [type(callback).__name__ for callback in fitting._callbacks(chosen)]
    assert names[:2] == ["ReduceLROnPlateau", "EarlyStopping"]
    history = fitting.fit(linear_model(), chosen, LEARNT, CONTRARY, seed=0).history
    assert history["learning_rate"] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_callbacks_are_new_for_every_fit() -> None:
    chosen = recipe(early_stopping=LAST | {"patience": 3})
    first, second = list(fitting._callbacks(chosen)), list(fitting._callbacks(chosen))
    assert not {id(callback) for callback in first} & {id(callback) for callback in second}


def test_every_epoch_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    fitting.fit(linear_model(), recipe(epochs=2), LEARNT, CONTRARY, seed=0)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("listed  epoch 1/2  ")
    assert last.startswith("listed  epoch 2/2  ")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert f"  {name} " in first
    assert last.endswith("at most 0:00 left")


def test_time_left_is_that_of_the_epochs_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    line = fitting.EpochLine(epochs=3)
    line.set_model(linear_model())
    line.on_epoch_begin(0)
    line.started -= 65.2
    line.on_epoch_end(0, {"loss": 0.123456})
    assert capsys.readouterr().out == "listed  epoch 1/3  loss 0.1235  at most 2:10 left\n"


TRAIN_SEEDS = """
import pathlib, sys
from pipeline.learning import hardware, model_file
from pipeline.shared.arrays import digest_of
from pipeline.training import fitting
from pipeline.training.twin import Twin
from tests import keras_models

hardware.make_deterministic(0, threads=2, share_batches=sys.argv[2] == "random")
data, tiny = keras_models.images(48), keras_models.recipe(batch_size=16)
for seed in map(int, sys.argv[3:]):
    model = getattr(keras_models, sys.argv[2] + "_model")()
    twin = Twin(model, "float32", parts=2 if sys.argv[2] == "random" else 1)
    fitting.fit(twin, tiny, data, data, seed)
    model.set_weights(twin.get_weights())
    model_file.save(model, pathlib.Path(sys.argv[1]) / f"{seed}.keras")
"""


@pytest.fixture(scope="module", params=["random", "residual"])
def trained_twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two processes that each train seed 0 on two threads, one of them seed 1 as well."""
    folders = [tmp_path_factory.mktemp("trained") for _ in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN_SEEDS, folder, request.param, *seeds],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        for folder, seeds in zip(folders, [["0", "1"], ["0"]], strict=True)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    return folders


def test_the_same_seed_gives_the_same_file_in_another_process(trained_twice: list[Path]) -> None:
    first, second = trained_twice
    assert (first / "0.keras").read_bytes() == (second / "0.keras").read_bytes()
    assert (first / "0.keras").read_bytes() != (first / "1.keras").read_bytes()


def test_averaged_weights_are_kept_at_the_end() -> None:
    averaged, plain = (
        recipe(optimizer=optimizer("SGD", use_ema=use_ema, ema_momentum=0.5)) for use_ema in (True, False)
    )
    weights = []
    for chosen in (averaged, plain):
        model = linear_model()
        fitting.fit(model, chosen, LEARNT, CONTRARY, seed=0)
        weights.append(model.get_weights()[0])
    difference = np.abs(weights[0] - weights[1]).max()
    assert 1e-4 < difference < 0.05


def test_a_training_leaves_its_recipe_as_it_was() -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    chosen = recipe(optimizer=optimizer("SGD", decay))
    before = digest_of(chosen.as_json())
    fitting.fit(linear_model(), chosen, LEARNT, CONTRARY, seed=0)
    assert digest_of(chosen.as_json()) == before
