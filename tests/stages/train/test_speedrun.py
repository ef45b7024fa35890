"""The parts of the speedrun, each against a small NumPy reference, and the whole, killed and resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import prediction
from pipeline.core.backend import keras, tf
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Network, Optimizer
from pipeline.stages.recipes import model_config, optimizer_config
from pipeline.stages.train import keras_fit, training
from pipeline.stages.train.augmentation import Cutout, RandomShift
from pipeline.stages.train.batches import Images, training_batches
from pipeline.stages.train.checkpoint import Checkpoint
from pipeline.stages.train.custom_optimizers import Lookahead, ScaledSGD, Triangle
from pipeline.stages.train.initial_weights import EPSILON, set_identity, set_whitening
from tests.keras_models import Interrupt, images, layers, listed, network_model, recipe

RNG = np.random.default_rng(0)
TINY = Network.model_validate({"name": "speedrun", "widths": [8, 24, 6]})
RATE = {"name": "triangle", "peak": 0.05}
SGD = {"name": "scaled_sgd", "momentum": 0.85, "nesterov": True, "l2": 0.001, "bias_scale": 64.0}
DATA = images(40, size=32)


def tiny_recipe(**changes: Any) -> Recipe:
    """Everything that a speedrun has, on eight steps."""
    settings = {
        "batch_size": 20,
        "epochs": 4,
        "label_smoothing": 0.2,
        "whitening": {"images": 10, "epochs": 1},
        "identity_kernels": True,
        "flip": "alternating",
        "lookahead": {"every": 3, "decay": 0.9},
    }
    optimizer = Optimizer.model_validate(SGD | {"learning_rate": RATE})
    return recipe(
        settings,
        model=model_config.configuration("key", TINY, [32, 32, 3], 2, "tiny"),
        optimizer=optimizer_config.configuration("key", optimizer, steps=8),
        **changes,
    )


def test_whitening_kernels_are_those_of_the_definition() -> None:
    model = listed(layers.Rescaling(2, -1), RandomShift(2), layers.Conv2D(24, 2, name="whitening"))
    some = images(3, size=4)
    set_whitening(model, some.images)
    values = some.images / 255 * 2 - 1
    rows = [
        values[image, top : top + 2, left : left + 2].ravel()
        for image in range(3)
        for top in range(3)
        for left in range(3)
    ]
    covariance = sum(np.outer(row, row) for row in rows) / len(rows)
    kernels = np.array(model.get_layer("whitening").kernel).reshape(12, 24)
    assert np.allclose(kernels[:, 12:], -kernels[:, :12])
    whitened = kernels[:, :12].T @ (covariance + EPSILON * np.eye(12)) @ kernels[:, :12]
    assert np.allclose(whitened, np.eye(12), atol=1e-5)
    assert not np.array(model.get_layer("whitening").bias).any()


def test_identity_kernels_pass_the_first_channels_on() -> None:
    wide, narrow = (layers.Conv2D(filters, 3, padding="same", use_bias=False) for filters in (5, 2))
    model = keras.Sequential([keras.Input((6, 6, 3)), wide, narrow])
    random = np.array(wide.kernel)
    set_identity(model)
    features = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
    assert np.array_equal(wide(features)[..., :3], features)
    assert np.array_equal(np.array(wide.kernel)[..., 3:], random[..., 3:])
    assert np.array_equal(model(features), features[..., :2])


def mirrored(epoch: int, seed: int = 0, flip: str = "alternating") -> list[bool]:
    """Which of 400 images an epoch mirrors; the others are as they were."""
    plain = np.arange(400 * 12, dtype=np.int32).reshape(400, 2, 2, 3)
    found: list[bool] = [False] * 400
    data, number = Images(plain, np.arange(400)), tf.Variable(epoch, dtype=tf.int64)
    for pixels, labels in training_batches(data, 150, seed, number, flip).as_numpy_iterator():
        for one, label in zip(pixels, labels, strict=True):
            found[label] = np.array_equal(one, plain[label][:, ::-1])
            assert found[label] or np.array_equal(one, plain[label])
    return found


def test_each_image_is_mirrored_in_every_second_epoch() -> None:
    first = mirrored(0)
    assert 150 < sum(first) < 250
    assert first == mirrored(2) == [not turned for turned in mirrored(1)]
    assert first != mirrored(0, seed=1)


def test_each_epoch_mirrors_another_random_half() -> None:
    first, second = (np.array(mirrored(epoch, flip="random")) for epoch in (0, 1))
    assert 150 < first.sum() < 250
    assert 100 < (first != second).sum() < 300
    assert np.array_equal(first, mirrored(0, flip="random"))


def test_each_image_is_shifted_on_its_own_and_filled_with_its_mirror_image() -> None:
    keras.utils.set_random_seed(0)
    some = np.random.default_rng(0).normal(size=(200, 5, 5, 1)).astype(np.float32)
    padded = np.pad(some, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="symmetric")
    shifted = RandomShift(2)(some, training=True).numpy()
    places = {(top, left): padded[:, top : top + 5, left : left + 5] for top in range(5) for left in range(5)}
    found = [
        place for n in range(200) for place, crops in places.items() if np.array_equal(crops[n], shifted[n])
    ]
    assert len(found) == 200
    assert set(found) == set(places)


def test_each_image_has_a_hole_of_its_own() -> None:
    some = RNG.normal(size=(300, 6, 5, 2)).astype(np.float32)
    holed = Cutout(3)(some, training=True).numpy()
    assert np.array_equal(Cutout(3)(some, training=False), some)
    places = set()
    for before, after in zip(some, holed, strict=True):
        rows, columns = np.nonzero((after == 0).all(axis=2))
        places.add((rows.min(), columns.min()))
        assert [np.ptp(rows), np.ptp(columns), len(rows)] == [2, 2, 9]
        assert np.array_equal(after[after != 0], before[after != 0])
    assert places == {(top, left) for top in range(4) for left in range(3)}


def test_the_triangle_is_linear_in_between() -> None:
    schedule = Triangle(peak=2.0, steps=200, start=0.2, warmup=0.25, end=0.1)
    expected = np.interp(range(220), [0, 50, 200], [0.4, 2.0, 0.2])
    assert [float(schedule(step)) for step in range(220)] == pytest.approx(list(expected), rel=1e-5)


def test_sgd_scales_biases_of_normalization_and_decays_all_weights_alike() -> None:
    optimizer = ScaledSGD(0.1, momentum=0.8, nesterov=True, l2=0.03, bias_scale=7.0)
    starts = {name: RNG.normal(size=4) for name in ("kernel", "bias", "beta")}
    variables = [keras.Variable(value, dtype="float32", name=name) for name, value in starts.items()]
    velocities = {name: np.zeros(4) for name in starts}
    for _ in range(5):
        gradients = {name: RNG.normal(size=4) for name in starts}
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients.values()], variables)
        for name, gradient in gradients.items():
            rate, decay = (0.7, 0.03 / 7) if name == "beta" else (0.1, 0.03)
            total = gradient + decay * starts[name]
            velocities[name] = 0.8 * velocities[name] + total
            starts[name] = starts[name] - rate * (total + 0.8 * velocities[name])
    for variable, expected in zip(variables, starts.values(), strict=True):
        assert np.allclose(variable, expected, atol=1e-5)


def test_lookahead_averages_as_its_source_does() -> None:
    weight = keras.Variable(RNG.normal(size=4), dtype="float32")
    lookahead = Lookahead([weight], every=3, decay=0.9, total=10)
    fast = average = np.array(weight)
    for step in range(1, 11):
        change = RNG.normal(size=4)
        weight.assign_add(change)
        lookahead(tf.constant(step))
        fast = fast + change
        if step % 3 == 0:
            kept = 0.9**3 * (step / 10) ** 3
            average = kept * average + (1 - kept) * fast
            fast = average
        if step == 10:
            fast = average
        assert np.allclose(weight, fast, atol=1e-5)


@pytest.mark.parametrize("views", ["mirror", "mirror_shift"])
def test_probabilities_are_averaged_over_views(views: str) -> None:
    model, some = network_model("shallow"), images(6, size=32).images

    def mirrored(pixels: np.ndarray) -> np.ndarray:
        both = (prediction.probabilities(model, np.array(one)) for one in (pixels, pixels[:, :, ::-1]))
        return np.mean(list(both), axis=0)

    padded = np.pad(some, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    shifts = [mirrored(padded[:, :-2, :-2]), mirrored(padded[:, 2:, 2:])]
    expected = mirrored(some) if views == "mirror" else (mirrored(some) + np.mean(shifts, axis=0)) / 2
    assert np.allclose(prediction.probabilities(model, some, views), expected, atol=1e-6)


class Watch(Interrupt):
    """Notes the whitening layer's weights after each epoch, too."""

    def __init__(self, epoch: int | None = None) -> None:
        super().__init__(epoch)
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.weights.append(self.model.network.get_layer("whitening").get_weights())


def trained(chosen: Recipe, watch: Watch, checkpoint: Checkpoint | None = None) -> list[np.ndarray]:
    """The weights after the training, as its stage trains."""
    keras.utils.set_random_seed(0)
    model = training.starting_model(chosen, DATA, None)
    twin = training.make_twin(model, chosen, DATA)
    keras_fit.fit(twin, chosen, DATA, DATA, 0, watch, checkpoint=checkpoint)
    return list(twin.get_weights())


def test_an_interrupted_speedrun_ends_as_one_that_was_not(tmp_path: Path) -> None:
    chosen, whole = tiny_recipe(precision="mixed_bfloat16"), Watch()
    kept = Checkpoint(tmp_path / "a.npz", "key")
    expected = trained(chosen, whole)
    with pytest.raises(KeyboardInterrupt):
        trained(chosen, Watch(2), kept)
    for one, other in zip(trained(chosen, Watch(), kept), expected, strict=True):
        assert np.array_equal(one, other)

    kernel, _ = training.starting_model(chosen, DATA, None).get_layer("whitening").get_weights()
    assert whole.weights[0][1].any()  # the bias trains for an epoch, the kernel never
    for now, bias in whole.weights[1:]:  # lookahead has averaged the bias once more
        assert np.array_equal(now, kernel)
        assert np.array_equal(bias, whole.weights[1][1])
