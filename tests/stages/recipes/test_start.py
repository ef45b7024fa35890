"""Starts from weights: those that a recipe holds are the file's, and what cannot be a start is refused."""

import json
from pathlib import Path
from typing import Any

import h5py
import mlflow
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from mlflow.models import Model as LoggedModel

from pipeline.core import keras_file
from pipeline.core.backend import keras
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Network
from pipeline.stages.recipes import applications, model_config
from pipeline.stages.train.fast_twin import Twin
from pipeline.stages.train.training import starting_model
from pipeline.support.digests import file_digest
from pipeline.support.paths import RECIPES
from tests.called import Called, call
from tests.conftest import contents
from tests.keras_models import images, network_model
from tests.stages.recipes.test_recipes import params_of, write_inputs

SMALL: dict[str, Any] = {"name": "application", "model": "MobileNet", "alpha": 0.25}
KINDS = ("no_top.h5", "top.h5", "no_top.weights.h5", "top.keras")
CLASSES = ["a", "b", "c"]  # of `write_inputs`


def legacy(model: keras.Model, path: Path) -> None:
    """Write weights in the format of the files of keras.applications."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same weights of the small network in files of all kinds, and as `expected.npz`."""
    folder = tmp_path_factory.mktemp("weights")
    top = applications.with_top("MobileNet", 0.25)
    drawn = np.random.default_rng(0)
    top.set_weights([drawn.uniform(0.1, 1, weights.shape) for weights in top.get_weights()])
    part = applications.backbone("MobileNet", 0.25, (32, 32, 3))
    part.set_weights(top.get_weights()[: len(part.weights)])
    legacy(part, folder / "no_top.h5")
    legacy(top, folder / "top.h5")
    part.save_weights(folder / "no_top.weights.h5")
    top.save(folder / "top.keras")
    (folder / "text.h5").write_text("not found")
    np.savez(folder / "expected.npz", *part.get_weights())
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


def recipes(start: dict[str, Any], network: Any = SMALL, **others: Any) -> Called:
    """Run the stage for one variant with this start."""
    write_inputs(params_of(shallow={"network": network, "start": start} | others))
    return call(Path.cwd(), "recipes")


def of_file(path: Path, **others: Any) -> dict[str, Any]:
    return {"weights": [str(path)], "sha256": file_digest(path)} | others


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_starts_with_the_weights_of_a_file_and_a_random_last_layer(files: Path, kind: str) -> None:
    assert recipes(of_file(files / kind, frozen_epochs=2)).error is None
    made = Recipe.read("shallow")
    assert made.settings.start is not None
    assert made.settings.start.model_dump() == {
        "sha256": file_digest(files / kind),
        "frozen_epochs": 2,
        "learning_rate_factor": 0.1,
    }
    assert made.start is not None
    first, other = (starting_model(made, images(3), made.start).get_weights() for _ in range(2))
    with np.load(files / "expected.npz") as expected:
        for number, weights in enumerate(expected.values()):
            assert np.array_equal(first[number], weights)
            assert np.array_equal(other[number], weights)
        assert len(first) == len(expected) + 2
    assert not np.array_equal(first[-2], other[-2])


def numbered(name: str, model: keras.Model, classes: list[str]) -> dict[str, str]:
    """A registered version of a model as `promote` lays it out, and the start that names it."""
    where = Path(name)
    keras_file.save(model, where / "artifacts/model.keras")
    LoggedModel(metadata={"classes": classes}).save(str(where / "MLmodel"))
    client, digest = mlflow.MlflowClient(), file_digest(where / "artifacts/model.keras")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, str(where.absolute()), tags={"model_digest": digest})
    return {"model": f"models:/{name}/{version.version}", "sha256": digest}


def test_a_version_gives_its_last_layer_only_for_the_same_classes(folder: Path) -> None:
    model = network_model("shallow", classes=3)
    for name, classes in (("same", CLASSES), ("others", ["a", "b", "d"])):
        start = numbered(name, model, classes)
        done = recipes(start, "shallow")
        assert done.error is None
        made = Recipe.read("shallow")
        assert made.start is not None
        stored = keras_file.load(made.start).get_weights()
        kept = len(model.weights) - (0 if name == "same" else 2)
        assert len(stored) == kept
        for one, other in zip(stored, model.get_weights(), strict=False):
            assert np.array_equal(one, other)
    (folder / "mlflow.db").unlink()  # it is asked once
    assert recipes(start, "shallow").error is None


def test_what_is_not_a_version_of_the_network_is_refused(folder: Path) -> None:
    write_inputs(params_of(shallow={}))
    sha256 = "0" * 64
    line = "start.model: models:/x/1: there is no MLflow store yet in this folder; "
    assert line in recipes({"model": "models:/x/1", "sha256": sha256}).refusal
    assert not (folder / "mlflow.db").exists()
    start = numbered("x", network_model("shallow", classes=3), CLASSES)
    mlflow.MlflowClient().set_registered_model_alias("x", "champion", "1")
    moves = "must be models:/NAME/VERSION, since an alias moves; "
    now = f"now models:/x@champion is model: models:/x/1, sha256: {start['sha256']}"
    another, first = "models:/x/1: is of another network: its layer", "Conv2D [(3, 3, 3, 16), (16,)]"
    for changed, network, line in (
        ({"model": "models:/x@champion"}, "shallow", moves + now),
        ({"model": "models:/x@previous"}, "shallow", f"{moves}received models:/x@previous"),
        ({"model": "models:/x/2"}, "shallow", "models:/x/2: cannot be loaded: "),
        (
            {"sha256": sha256},
            "shallow",
            f"models:/x/1: expected SHA-256 {sha256}, received {start['sha256']}",
        ),
        ({}, "vgg3", f"{another} 1 with weights is {first}, that of `network` Conv2D [(3, 3, 3, 32), (32,)]"),
        ({}, "augmented", f"{another} 2 with weights is "),
    ):
        refusal = recipes(start | changed, network).refusal
        assert refusal.startswith(f"params.yaml: variants.shallow.start.model: {line}")
        assert not RECIPES.exists()


OTHERS = "weights: {path}: its weights are not those of `network`: "
ONE_FROZEN = {"start": {"frozen_epochs": 1}}
TRIANGLE = {"name": "sgd", "learning_rate": {"name": "triangle", "peak": 1}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("top.h5", {"start": {"sha256": "0" * 64}}, "weights: no intact file: tried {path} (expected SHA-256 0"),
    ("missing.h5", {}, "weights: no intact file: tried {path} (No such file or directory)"),
    ("text.h5", {}, "weights: {path}: not a file of Keras weights: .h5, .weights.h5 or .keras"),
    ("no_top.h5", {"network": SMALL | {"alpha": 0.5}}, OTHERS),
    ("no_top.h5", {"network": "shallow"}, OTHERS),
    ("top.keras", {"network": SMALL | {"model": "MobileNetV2"}}, OTHERS),
    ("top.h5", {"start": {"frozen_epochs": 31}}, "frozen_epochs: must be at most epochs, 30; received 31"),
    ("top.h5", {"identity_kernels": True}, ": cannot be used with identity_kernels, which sets weights, too"),
    ("top.h5", ONE_FROZEN | {"lookahead": {"every": 5, "decay": 0.9}}, "frozen_epochs: cannot be used with "),
    ("top.h5", ONE_FROZEN | {"optimizer": TRIANGLE}, "frozen_epochs: needs a learning rate that is a number"),
]


@pytest.mark.parametrize(("name", "changes", "line"), REFUSED)
def test_what_cannot_be_a_start_is_refused_in_one_line_before_anything_is_written(
    files: Path, name: str, changes: dict[str, Any], line: str
) -> None:
    path = files / name
    known = path if path.is_file() else files / "top.h5"
    start = {"weights": [str(path)], "sha256": file_digest(known)} | changes.get("start", {})
    others = {key: value for key, value in changes.items() if key != "start"}
    expected = f"params.yaml: variants.shallow.start.{line.format(path=path)}".replace(".: ", ": ")
    assert recipes(start, **({"network": SMALL} | others)).refusal.startswith(expected)
    assert not RECIPES.exists()


def test_a_mirror_of_the_file_changes_no_recipe(files: Path) -> None:
    assert recipes(of_file(files / "top.h5")).error is None
    before = contents(RECIPES)
    start = of_file(files / "top.h5", weights=["http://me:secret@127.0.0.1:9/top.h5", str(files / "top.h5")])
    assert recipes(start).error is None
    assert contents(RECIPES) == before
    assert "secret" not in recipes(start | {"weights": start["weights"][:1]}).refusal


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square")
@pytest.mark.parametrize("model", ["MobileNetV3Small", "EfficientNetB0"])
def test_an_application_computes_what_keras_does_with_weights_of_its_own(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keras adds preprocessing to some networks only if it downloads their weights."""
    made = model_config.build(
        Network.model_validate(SMALL | {"model": model, "alpha": None}), [32, 32, 3], 3, "x"
    )
    part = next(layer for layer in made.layers if isinstance(layer, keras.Model))
    drawn = np.random.default_rng(0)
    first = [weights + drawn.uniform(0, 0.1, weights.shape) for weights in part.get_weights()]
    keras_file.set_weights(part, first)
    legacy(part, tmp_path / "weights.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(tmp_path / "weights.h5"))
    function = getattr(keras.applications, model)
    theirs = function(include_top=False, weights="imagenet", input_shape=(32, 32, 3), pooling="avg")
    ours = Twin(keras.Model(made.input, made.layers[-2].output), "float32")
    pixels = images(4, size=32).images
    module = __import__(function.__module__, fromlist=["preprocess_input"])
    expected = theirs(module.preprocess_input(pixels.astype(np.float32)), training=False)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(ours(pixels, training=False), expected, rtol=1e-3, atol=1e-4)


def test_an_application_is_saved_as_plain_keras() -> None:
    config = model_config.configuration("key", Network.model_validate(SMALL), [32, 32, 3], 3, "x")
    json.dumps(config)  # and `check_layers` found no other layers
