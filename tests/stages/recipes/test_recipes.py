"""The recipes stage: reproducible recipes from params.yaml, and one-line refusals that name the key."""

import contextlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.core import hardware
from pipeline.core.arrays import write_arrays
from pipeline.core.backend import keras
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Network, Optimizer
from pipeline.params import Params
from pipeline.stages.recipes import model_config, networks, optimizer_config
from pipeline.stages.recipes.settings_check import classes
from pipeline.stages.train.augmentation import Cutout, RandomShift
from pipeline.support.known_names import class_arguments
from tests.called import call
from tests.conftest import PARAMS, contents, refusal
from tests.projects import small_params

layers = keras.layers
OTHERS = {f"_{name}.json" for name in ("index", "promotion", "serving", "published", "card")}
SCHEDULE = {"name": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 100}
STOPPING = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}


def write_inputs(params: str, images: int = 45_000) -> None:
    """Write params.yaml, and the facts of so many prepared images of three classes."""
    Path("params.yaml").write_text(params)
    facts = {"classes": list("abc"), "image_shape": [32, 32, 3], "counts": {"train": images}}
    write_arrays(Path("data/prepared/split"), {}, **facts)


def params_of(**variants: dict[str, Any]) -> str:
    return json.dumps(small_params(**variants))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes of the tests' params.yaml."""
    folder = tmp_path_factory.mktemp("recipes")
    with contextlib.chdir(folder):
        write_inputs(PARAMS.read_text())
    assert call(folder, "recipes").error is None
    return folder


def test_the_repositorys_params_make_a_recipe_for_each_variant(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    blocks = Params.read().blocks
    assert contents(Path("recipes")).keys() - OTHERS == {
        f"{key.rpartition('.')[2]}/recipe.json" for key in blocks
    }
    for key, block in blocks.items():
        recipe = Recipe.read(key.rpartition(".")[2])
        assert recipe.init_from == ("batchnorm" if key.startswith("finetune.") else None)
        assert recipe.settings.content() == block.content()


ADAM, SGD = ({"name": name, "learning_rate": 0.1} for name in ("adam", "sgd"))
SHORT = {"name": "cosine_decay", "decay_steps": 3}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"network": {"name": "shallow", "width": 3}}, "network.width: unknown argument; allowed: none"),
    ({"optimizer": ADAM | {"name": "adamm"}}, "optimizer.name: allowed: Adadelta, "),
    ({"optimizer": ADAM | {"beta": 1}}, "optimizer.beta: unknown argument; "),
    ({"optimizer": SGD | {"momentum": 2}}, "optimizer: "),
    ({"optimizer": SGD | {"learning_rate": {"name": "cosine"}}}, "optimizer.learning_rate.name: "),
    (
        {"optimizer": SGD | {"learning_rate": SHORT}},
        "optimizer.learning_rate: CosineDecay.__init__() missing ",
    ),
    (
        {"optimizer": SGD | {"learning_rate": SCHEDULE}, "reduce_learning_rate": REDUCING},
        "reduce_learning_rate: cannot lower a learning rate that follows a schedule",
    ),
    (
        {"optimizer": SGD | {"use_ema": True}, "early_stopping": STOPPING},
        "early_stopping.restore_best_weights: must be false with optimizer.use_ema",
    ),
    ({"whitening": {"images": 10, "epochs": 1}}, "whitening: needs a list of layers in which a Conv2D named"),
    ({"augmentation": []}, "augmentation: must not be empty"),
    ({"augmentation": [{"name": "resizing"}]}, "augmentation.0.name: allowed: AugMix, Cutout, RandAugment, "),
    ({"augmentation": [{"name": "random_flip", "axis": 1}]}, "augmentation.0.axis: unknown argument; "),
    ({"augmentation": [{"name": "random_zoom", "height_factor": 3}]}, "augmentation.0: "),
    (
        {"augmentation": [{"name": "cutout", "pixels": 33}]},
        "augmentation.0: cannot be used: pixels: must be ",
    ),
    (
        {"augmentation": [{"name": "random_flip"}, {"name": "random_crop", "height": 8, "width": 8}]},
        "augmentation.1: must keep the images' shape, [32, 32, 3]; it returns [8, 8, 3]",
    ),
    ({"class_weight": "even"}, "class_weight: "),
    ({"batch_size": 101}, "batch_size: must be at most 100, the number of training images; received 101"),
]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_an_impossible_variant_is_refused_by_its_key(changes: dict[str, Any], reason: str) -> None:
    write_inputs(params_of(shallow=changes), images=100)
    Path("recipes").mkdir()
    Path("recipes/kept.json").touch()
    assert refusal(main, ["recipes"]).startswith(f"error: params.yaml: variants.shallow.{reason}")
    assert contents(Path("recipes")) == {"kept.json": b""}


def test_arguments_that_are_read_from_source_are_those_of_the_classes() -> None:
    for package, kinds in (
        ("optimizers", optimizer_config.OPTIMIZERS),
        ("optimizers/schedules", optimizer_config.SCHEDULES),
        ("layers", model_config.RANDOM_LAYERS),
    ):
        for name, kind in kinds.items():
            arguments = inspect.signature(kind).parameters.keys() - {"kwargs", "name"}
            assert {*class_arguments(classes(package)[name], name)} == arguments


def test_more_training_images_than_there_are_use_all_and_a_line_says_so(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        write_inputs(params_of(shallow={"training_images": 101}), images=100)
        done = call(tmp_path, "recipes")
        assert Recipe.read("shallow").settings.training_images == 100
    line = "params.yaml: variants.shallow.training_images: 101, but there are 100: all are used"
    assert (done.error, done.out.splitlines()[0]) == (None, line)


def seeded() -> list[keras.Layer]:
    """Weights that are the same in each model, since their initializer says so."""
    kernel = keras.initializers.GlorotUniform(seed=3)
    return [layers.Flatten(), layers.Dense(4, kernel_initializer=kernel, bias_initializer="ones")]


def of_tensor(inputs: Any, width: int = 4) -> Any:
    """Two branches that are added."""
    one = layers.Conv2D(width, 3, padding="same")(inputs)
    return layers.Flatten()(one + layers.Conv2D(width, 1)(inputs))


class Doubled(layers.Layer):  # type: ignore[name-defined]
    """A layer that is not Keras's."""

    def call(self, inputs: Any) -> Any:
        return 2 * inputs


def with_bias(layer: keras.Layer) -> keras.Layer:
    layer.build((None, 3072))
    layer.bias.assign([1, 2, 3, 4])
    return layer


def holding() -> list[keras.Layer]:
    """A layer whose weights are set, inside a model, as a pretrained one would be."""
    inner = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    inner.set_weights([np.full(weights.shape, 0.5) for weights in inner.get_weights()])
    return [inner]


def raises() -> list[keras.Layer]:
    raise RuntimeError("out of\nideas")


BAD_NETWORKS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (raises, "pixels (data.image_size): out of ideas"),
    "returns nothing": (lambda: None, "cannot be built for images of 32 pixels (data.image_size): "),
    "does not fit": (lambda: [layers.Flatten(), layers.Conv2D(4, 3)], "cannot be built for images of 32 "),
    "ends in an image": (lambda: [layers.Conv2D(4, 3)], "must return one vector per image"),
    "own layer": (lambda: [Doubled(), layers.Flatten()], "'Doubled' is not Keras's own"),
    "holds weights": (holding, "network: holds weights, such as "),
    "holds biases": (
        lambda: [layers.Flatten(), with_bias(layers.Dense(4))],
        "write them to a file, and let `start` of the variant name it",
    ),
    "function": (lambda: [layers.Lambda(abs), layers.Flatten()], "is not Keras's own"),
    "hole too large": (
        lambda: [Cutout(33), layers.Flatten()],
        "pixels: must be a whole number from 1 to 32; received 33",
    ),
    "missing argument": (
        lambda width: [layers.Dense(width)],
        "cannot be built for images of 32 ",
    ),
}


def configuration(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> dict[str, Any]:
    """The configuration of a network that is this function."""
    monkeypatch.setattr(networks, "shallow", function)
    return model_config.configuration("key", Network(name="shallow"), [32, 32, 3], 10, "shallow")


@pytest.mark.parametrize(("function", "reason"), BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_a_network_that_cannot_be_trained_or_served_is_refused(
    function: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(configuration, monkeypatch, function)
    assert line.startswith("key")
    assert reason in line


@pytest.mark.parametrize("function", [of_tensor, seeded])
def test_a_network_may_be_a_function_of_a_tensor_or_have_weights_of_its_own_seed(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(monkeypatch, function)
    model = keras.saving.deserialize_keras_object(config)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))


def test_seeds_that_layers_draw_are_left_to_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> list[keras.Layer]:
        return [layers.RandomCrop(30, 30), RandomShift(2), layers.Flatten(), layers.Dropout(0.5, seed=7)]

    config = configuration(monkeypatch, network)
    by_class = {part["class_name"]: part["config"] for part in config["config"]["layers"]}
    assert by_class["RandomCrop"]["seed"] is None
    assert by_class["Dropout"]["seed"] == 7


def test_all_arguments_arrive_in_the_optimizer() -> None:
    arguments = {"clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9, "weight_decay": 5e-4}
    given = Optimizer.model_validate({"name": "adamw", "learning_rate": SCHEDULE} | arguments)
    built = keras.saving.deserialize_keras_object(optimizer_config.configuration("key", given, steps=10))
    assert arguments.items() <= built.get_config().items()
    assert type(built._learning_rate).__name__ == "CosineDecay"


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ({"name": "cosine_decay", "initial_learning_rate": 0.1}, 90),
        ({"name": "CosineDecay", "initial_learning_rate": 0.0, "warmup_target": 0.1, "warmup_steps": 30}, 60),
        ({"name": "exponential_decay", "initial_learning_rate": 0.1, "decay_rate": 0.5}, 90),
        (SCHEDULE, 100),
        ({"name": "triangle", "peak": 0.1}, 90),
    ],
)
def test_a_schedule_lasts_as_long_as_the_training_unless_it_says_otherwise(
    schedule: dict[str, Any], steps: int
) -> None:
    given = Optimizer.model_validate({"name": "adam", "learning_rate": schedule})
    built = keras.saving.deserialize_keras_object(optimizer_config.configuration("key", given, steps=90))
    config = built._learning_rate.get_config()
    assert config.get("decay_steps", config.get("steps")) == steps


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("precision", "mixed_bfloat16", "precision is mixed_bfloat16, but here it is float32"),
        ("versions", {"keras": "2.0"}, "versions.keras is '2.0', but "),
    ],
)
def test_another_machine_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, reason: str
) -> None:
    monkeypatch.chdir(made)
    assert reason in refusal(Recipe.read("shallow").model_copy(update={key: value}).check_machine)


@pytest.mark.parametrize(("flags", "precision"), [("fma avx512_bf16", "mixed_bfloat16"), ("fma", "float32")])
def test_auto_is_bfloat16_if_the_cpu_has_it(
    flags: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(hardware, "CPU", tmp_path / "cpuinfo")
    assert hardware.resolve_precision("auto") == precision
    assert hardware.resolve_precision("float32") == "float32"
