"""Training on arrays in memory: the order of the data, callbacks, and the same weights every time."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.learning import training
from pipeline.learning.backend import keras, tf
from pipeline.learning.training import Images
from pipeline.settings.hyperparameters import Variant

ROOT = Path(__file__).parent.parent
BEST = {"monitor": "val_loss", "restore_best_weights": True}
LAST = {"monitor": "val_loss", "restore_best_weights": False}


def variant(**changes: Any) -> Variant:
    block = {
        "network": "shallow",
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "batch_size": 4,
        "epochs": 2,
    }
    return Variant.model_validate(block | changes)


def linear_model() -> keras.Sequential:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((2, 2, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ],
        name="linear",
    )


def numbered(count: int) -> Images:
    """Images whose label is their number."""
    labels = np.arange(count)
    images = np.broadcast_to(labels[:, None, None, None], (count, 2, 2, 3)).astype(np.uint8)
    return Images(images, labels)


@pytest.fixture
def learnt() -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (10, 2, 2, 3), dtype=np.uint8), np.arange(10) % 2)


@pytest.fixture
def contrary(learnt: Images) -> Images:
    """Validation data on which whatever is learnt is wrong, so that its loss only rises."""
    return Images(learnt.images, 1 - learnt.labels)


def order(seed: int, epoch: int) -> list[int]:
    batches = training.training_batches(numbered(10), 4, seed, tf.Variable(epoch, dtype=tf.int64))
    return [int(label) for _, labels in batches for label in labels]


def test_an_epoch_holds_every_image_once_with_its_label() -> None:
    batches = list(training.training_batches(numbered(10), 4, 0, tf.Variable(0, dtype=tf.int64)))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert sorted(int(label) for _, labels in batches for label in labels) == list(range(10))
    for images, labels in batches:
        assert images.dtype == tf.uint8
        assert np.array_equal(images[:, 0, 0, 0], labels)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(0, 0) == order(0, 0)
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(one) for one in orders}) == 4
    assert list(range(10)) not in orders


def test_order_follows_the_epoch_variable() -> None:
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = training.training_batches(numbered(10), 4, 0, epoch)
    for number in (0, 1, 0):
        epoch.assign(number)
        assert [int(label) for _, labels in batches for label in labels] == order(0, number)


@pytest.mark.parametrize(
    ("training_images", "validation_images", "smallest"), [(8, 500, 4), (9, 500, 1), (8, 503, 3)]
)
def test_smallest_batch_is_the_last_of_training_or_validation(
    training_images: int, validation_images: int, smallest: int
) -> None:
    assert (
        training.smallest_batch(variant(), numbered(training_images), numbered(validation_images)) == smallest
    )


def test_validation_batches_hold_all_images_in_order() -> None:
    batches = training.validation_batches(numbered(7))
    assert [int(label) for _, labels in batches for label in labels] == list(range(7))


def test_fit_trains_on_the_batches_of_each_epoch(learnt: Images, contrary: Images) -> None:
    by_fit, by_hand = linear_model(), linear_model()
    by_hand.set_weights(by_fit.get_weights())
    training.fit(by_fit, variant(), learnt, contrary, seed=3)

    training.compile_model(by_hand, variant())
    for number in (0, 1):
        epoch = tf.Variable(number, dtype=tf.int64)
        for images, labels in training.training_batches(learnt, 4, 3, epoch):
            by_hand.train_on_batch(images, labels)
    for fitted, expected in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        assert np.allclose(fitted, expected, atol=1e-6)


def test_fit_traces_each_step_once(learnt: Images, contrary: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    for name in ("train_step", "test_step"):
        step = getattr(keras.Sequential, name)

        def traced_step(model: keras.Model, data: Any, name: str = name, step: Any = step) -> Any:
            traced.append(name)
            return step(model, data)

        monkeypatch.setattr(keras.Sequential, name, traced_step)
    training.fit(linear_model(), variant(), learnt, contrary, seed=0)
    assert sorted(traced) == ["test_step", "train_step"]


def test_fit_gives_a_value_an_epoch_and_the_time(learnt: Images, contrary: Images) -> None:
    fit = training.fit(linear_model(), variant(epochs=3), learnt, contrary, seed=0)
    assert {name: len(values) for name, values in fit.history.items()} == dict.fromkeys(
        ("accuracy", "loss", "val_accuracy", "val_loss"), 3
    )
    assert fit.wall_seconds > 0
    assert fit.cpu_seconds > 0


def test_first_takes_the_first_images_or_all() -> None:
    assert numbered(10).first(3).labels.tolist() == [0, 1, 2]
    assert len(numbered(10).first(3).images) == 3
    assert len(numbered(10).first(None).labels) == 10


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_optimizers_are_at_keras_defaults_but_for_the_learning_rate(name: str) -> None:
    model = linear_model()
    training.compile_model(model, variant(optimizer={"name": name, "learning_rate": 0.125}))
    default, ours = keras.optimizers.get(name), model.optimizer
    assert type(ours) is type(default)
    expected = default.get_config() | {"learning_rate": 0.125}
    assert ours.get_config() | {"name": expected["name"]} == expected


@pytest.mark.parametrize(("stopping", "kept"), [(BEST, 0), (LAST, -1)])
def test_weights_of_the_best_epoch_are_kept_where_the_variant_says_so(
    stopping: dict[str, Any], kept: int, learnt: Images, contrary: Images
) -> None:
    model = linear_model()
    chosen = variant(epochs=9, early_stopping=stopping | {"patience": 2})
    history = training.fit(model, chosen, learnt, contrary, seed=0).history
    assert len(history["val_loss"]) == 3
    assert history["val_loss"] == sorted(history["val_loss"])
    loss = model.evaluate(contrary.images, contrary.labels, verbose=0)[0]
    assert loss == pytest.approx(history["val_loss"][kept], abs=1e-6)


def test_best_weights_are_kept_when_the_epochs_run_out_first(learnt: Images, contrary: Images) -> None:
    model = linear_model()
    chosen = variant(epochs=2, early_stopping=BEST | {"patience": 5})
    history = training.fit(model, chosen, learnt, contrary, seed=0).history
    assert len(history["val_loss"]) == 2
    loss = model.evaluate(contrary.images, contrary.labels, verbose=0)[0]
    assert loss == pytest.approx(min(history["val_loss"]), abs=1e-6)


def test_learning_rate_is_lowered_before_stopping_is_considered(learnt: Images, contrary: Images) -> None:
    chosen = variant(
        epochs=4,
        reduce_learning_rate={"monitor": "val_loss", "factor": 0.5, "patience": 1},
        early_stopping=LAST | {"patience": 3},
    )
    names = [type(callback).__name__ for callback in training._callbacks(chosen)]
    assert names[:2] == ["ReduceLROnPlateau", "EarlyStopping"]
    history = training.fit(linear_model(), chosen, learnt, contrary, seed=0).history
    assert history["learning_rate"] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_callbacks_are_new_for_every_fit() -> None:
    chosen = variant(early_stopping=LAST | {"patience": 3})
    first, second = list(training._callbacks(chosen)), list(training._callbacks(chosen))
    assert not {id(callback) for callback in first} & {id(callback) for callback in second}


def test_every_epoch_prints_a_line(
    learnt: Images, contrary: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    training.fit(linear_model(), variant(epochs=2), learnt, contrary, seed=0)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("linear  epoch 1/2  ")
    assert last.startswith("linear  epoch 2/2  ")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert f"  {name} " in first
    assert last.endswith("at most 0:00 left")


def test_time_left_is_that_of_the_epochs_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    line = training.EpochLine(epochs=3)
    line.set_model(linear_model())
    line.on_epoch_begin(0)
    line.started -= 65.2
    line.on_epoch_end(0, {"loss": 0.123456})
    assert capsys.readouterr().out == "linear  epoch 1/3  loss 0.1235  at most 2:10 left\n"


TRAIN_SEEDS = """
import pathlib, sys
import numpy as np
from pipeline.learning import models, training
from pipeline.settings.hyperparameters import Variant

rng = np.random.default_rng(0)
data = training.Images(rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8), np.arange(48) % 10)
optimizer = {"name": "adam", "learning_rate": 0.001}
variant = Variant(network="augmented", optimizer=optimizer, batch_size=16, epochs=2)
for seed in map(int, sys.argv[2:]):
    training.make_deterministic(seed, threads=1)
    model = models.build("augmented", 10, "augmented")
    training.fit(model, variant, data, data, seed)
    path = pathlib.Path(sys.argv[1]) / f"{seed}.keras"
    models.save(model, path)
"""


@pytest.fixture(scope="module")
def trained_twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two processes that each train seed 0, one of them seed 1 as well."""
    folders = [tmp_path_factory.mktemp("trained") for _ in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN_SEEDS, folder, *seeds], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        for folder, seeds in zip(folders, [["0", "1"], ["0"]], strict=True)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    return folders


def weights(file: Path) -> bytes:
    """The weights in a model's file, with the optimizer's state."""
    with zipfile.ZipFile(file) as archive:
        return archive.read("model.weights.h5")


def test_the_same_seed_gives_the_same_weights_in_another_process(trained_twice: list[Path]) -> None:
    first, second = trained_twice
    assert weights(first / "0.keras") == weights(second / "0.keras")


def test_another_seed_gives_other_weights(trained_twice: list[Path]) -> None:
    assert weights(trained_twice[0] / "0.keras") != weights(trained_twice[0] / "1.keras")


def test_the_same_seed_gives_the_same_file_in_another_process(trained_twice: list[Path]) -> None:
    first, second = trained_twice
    assert (first / "0.keras").read_bytes() == (second / "0.keras").read_bytes()
