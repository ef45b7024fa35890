"""The recipes stage: reproducible recipes from params.yaml, and one-line refusals that name the key."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import recipes
from pipeline.design import architecture, networks, optimizers
from pipeline.learning import hardware
from pipeline.learning.backend import keras
from pipeline.learning.recipe import Recipe
from pipeline.params import Params
from pipeline.shared.arrays import write_arrays
from pipeline.shared.errors import PipelineError
from pipeline.shared.load_params import load_params
from pipeline.shared.variant import Network, Optimizer
from pipeline.training.layers import RandomShift
from tests.conftest import ROOT
from tests.jobs import small_params

layers = keras.layers
FACTS = {"classes": list("abc"), "image_shape": [32, 32, 3], "counts": {"train": 100}}
SCHEDULE = {"name": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 100}
STOPPING = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
REDUCING = {"monitor": "val_loss", "factor": 0.5, "patience": 1}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml for three variants and the facts of 100 prepared images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recipes"])
    write_params()
    write_arrays(Path("data/prepared/split"), {}, **FACTS)
    return tmp_path


def write_params(**shallow: Any) -> None:
    params = small_params(shallow=shallow, translate={}, model_s={})
    Path("params.yaml").write_text(yaml.safe_dump(params))


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("recipes").iterdir()}


@pytest.mark.usefixtures("project")
def test_recipes_are_the_same_bytes_in_another_process() -> None:
    recipes.main()
    here = contents()
    assert set(here) == {"_index.json", "shallow.json", "translate.json", "model_s.json"}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pipeline.recipes"], env=environment, check=True)
    assert contents() == here


@pytest.mark.usefixtures("project")
def test_only_the_recipe_of_a_changed_variant_changes() -> None:
    recipes.main()
    before = contents()
    write_params(optimizer={"name": "adam", "learning_rate": 0.5})
    recipes.main()
    after = contents()
    assert {name for name in before if before[name] != after[name]} == {"shallow.json"}


@pytest.mark.usefixtures("project")
def test_recipe_is_read_and_built_as_it_was_written() -> None:
    write_params(network={"name": "vgg3"}, label_smoothing=0.1, early_stopping=STOPPING)
    recipes.main()
    recipe = Recipe.read("shallow")
    assert recipe.build().count_params() < 550_570  # for three classes
    assert (recipe.label_smoothing, recipe.early_stopping) == (0.1, STOPPING)
    assert recipe.share_batches
    recipe.check_machine()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"network": {"name": "shallow", "width": 3}}, "network.width: unknown argument; allowed: none"),
    ({"optimizer": {"name": "adamm", "learning_rate": 0.1}}, "optimizer.name: allowed: Adadelta, "),
    ({"optimizer": {"name": "adam", "learning_rate": 0.1, "beta": 1}}, "optimizer.beta: unknown argument; "),
    ({"optimizer": {"name": "adam", "learning_rate": 0.1, "beta_1": "x"}}, "optimizer: "),
    ({"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 2}}, "optimizer: "),
    ({"optimizer": {"name": "sgd", "learning_rate": {"name": "cosine"}}}, "optimizer.learning_rate.name: "),
    (
        {"optimizer": {"name": "sgd", "learning_rate": {"name": "cosine_decay", "decay_steps": 3}}},
        "optimizer.learning_rate.initial_learning_rate: missing",
    ),
    (
        {"optimizer": {"name": "sgd", "learning_rate": SCHEDULE}, "reduce_learning_rate": REDUCING},
        "reduce_learning_rate: cannot lower a learning rate that follows a schedule",
    ),
    (
        {"optimizer": {"name": "sgd", "learning_rate": 0.1, "use_ema": True}, "early_stopping": STOPPING},
        "early_stopping.restore_best_weights: must be false with optimizer.use_ema",
    ),
    ({"whitening": {"images": 10, "epochs": 1}}, "whitening: needs a list of layers in which a Conv2D named"),
    ({"batch_size": 101}, "batch_size: at most the 100 training images; received 101"),
    ({"training_images": 101}, "training_images: at most the 100 training images; received 101"),
    ({"training_images": 20}, "batch_size: at most the 20 training images; received 32"),
]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_an_impossible_variant_is_refused_by_its_key(changes: dict[str, Any], reason: str) -> None:
    write_params(**changes)
    Path("recipes").mkdir()
    Path("recipes/kept.json").touch()
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    line = str(ended.value.code)
    assert line.startswith(f"error: params.yaml: variants.shallow.{reason}")
    assert "\n" not in line
    assert set(contents()) == {"kept.json"}


def of_tensor(inputs: Any, width: int = 4) -> Any:
    """Two branches that are added."""
    one = layers.Conv2D(width, 3, padding="same")(inputs)
    return layers.Flatten()(one + layers.Conv2D(width, 1)(inputs))


class Doubled(layers.Layer):  # type: ignore[name-defined]
    """A layer that is not Keras's."""

    def call(self, inputs: Any) -> Any:
        return 2 * inputs


def raises() -> list[keras.Layer]:
    raise RuntimeError("out of\nideas")


BAD_NETWORKS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (raises, "pixels (data.image_size): out of ideas"),
    "returns nothing": (lambda: None, "cannot be built for images of 32 pixels (data.image_size): "),
    "does not fit": (
        lambda: [layers.Flatten(), layers.Conv2D(4, 3)],
        "cannot be built for images of 32 pixels (data.image_size): ",
    ),
    "ends in an image": (lambda: [layers.Conv2D(4, 3)], "must end in one vector for each image"),
    "own layer": (lambda: [Doubled(), layers.Flatten()], "'Doubled' is not Keras's own"),
    "function": (lambda: [layers.Lambda(abs), layers.Flatten()], "is not Keras's own"),
    "missing argument": (lambda width: [layers.Dense(width)], "width: missing"),
}


@pytest.mark.parametrize(("function", "reason"), BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_a_network_that_cannot_be_trained_or_served_is_refused(
    function: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "shallow", function)
    with pytest.raises(PipelineError) as refused:
        architecture.configuration("key", Network(name="shallow"), [32, 32, 3], 10, "shallow")
    assert str(refused.value).startswith("key")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def configuration(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> dict[str, Any]:
    monkeypatch.setattr(networks, "shallow", function)
    return architecture.configuration("key", Network(name="shallow"), [32, 32, 3], 10, "shallow")


def test_a_network_may_be_a_function_of_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(monkeypatch, of_tensor)
    assert not architecture.can_share_batches(config)
    model = keras.saving.deserialize_keras_object(config)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))


def test_seeds_that_layers_draw_are_left_to_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(
        monkeypatch,
        lambda: [layers.RandomCrop(30, 30), RandomShift(2), layers.Flatten(), layers.Dropout(0.5, seed=7)],
    )
    by_class = {part["class_name"]: part["config"] for part in config["config"]["layers"]}
    assert by_class["RandomCrop"]["seed"] is None
    assert by_class["Dropout"]["seed"] == 7


def test_a_network_fits_other_sizes_of_images_or_is_refused_by_the_key() -> None:
    config = architecture.configuration("key", Network(name="shallow"), [48, 48, 3], 3, "shallow")
    model = keras.saving.deserialize_keras_object(config)
    assert (model.input_shape, model.output_shape) == ((None, 48, 48, 3), (None, 3))
    with pytest.raises(
        PipelineError, match=r"^key: cannot be built for images of 8 pixels \(data.image_size\): "
    ):
        architecture.configuration("key", Network(name="deep_dropout"), [8, 8, 3], 3, "deep_dropout")


OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    {"name": "AdamW", "learning_rate": SCHEDULE, "clipnorm": 1.0},
    {"name": "rmsprop", "learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.9},
]


@pytest.mark.parametrize("given", OPTIMIZERS)
def test_all_arguments_arrive_in_the_optimizer(given: dict[str, Any]) -> None:
    config = optimizers.configuration("key", Optimizer.model_validate(given), steps=10)
    built = keras.saving.deserialize_keras_object(config)
    arguments = {key: value for key, value in given.items() if key not in {"name", "learning_rate"}}
    assert arguments.items() <= built.get_config().items()
    rate = given["learning_rate"]
    if isinstance(rate, dict):
        assert float(built.learning_rate) == pytest.approx(0.1)
        assert type(built._learning_rate).__name__ == "CosineDecay"
    else:
        assert float(built.learning_rate) == pytest.approx(rate)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("device", "gpu", "device is gpu, but here it is cpu"),
        ("precision", "mixed_bfloat16", "precision is mixed_bfloat16, but here it is float32"),
        ("versions", {"keras": "2.0"}, "made with keras 2.0, but "),
    ],
)
def test_another_machine_is_refused(key: str, value: Any, reason: str) -> None:
    recipes.main()
    with pytest.raises(PipelineError, match=reason):
        replace(Recipe.read("shallow"), **{key: value}).check_machine()


@pytest.mark.parametrize(("flags", "precision"), [("fma avx512_bf16", "mixed_bfloat16"), ("fma", "float32")])
def test_auto_is_bfloat16_if_the_cpu_has_it(
    flags: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(hardware, "CPU", tmp_path / "cpuinfo")
    assert hardware.resolve_precision("auto") == precision
    assert hardware.resolve_precision("float32") == "float32"


def test_the_repositorys_params_make_sixteen_recipes(project: Path) -> None:
    facts = FACTS | {"counts": {"train": 45_000}}
    write_arrays(Path("data/prepared/split"), {}, **facts)
    shutil.copy(ROOT / "params.yaml", project)
    with contextlib.redirect_stdout(None):
        recipes.main()
    made = [Recipe.read(path.stem) for path in Path("recipes").glob("[!_]*.json")]
    assert len(made) == 16
    assert all(recipe.share_batches for recipe in made)
    blocks = load_params(Params).blocks
    for recipe in made:
        key = f"finetune.variants.{recipe.variant}" if recipe.init_from else f"variants.{recipe.variant}"
        assert recipe.settings == json.loads(blocks[key].model_dump_json(exclude_none=True))
