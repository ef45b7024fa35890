"""The weights that a variant's trainings start with: those of a file, or of a registered version.

`recipes` writes them beside the recipe. So a training depends on their bytes, and downloads nothing.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py

from pipeline.core import keras_file
from pipeline.core.backend import keras
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Network
from pipeline.params import StartSource
from pipeline.stages.recipes import applications, networks
from pipeline.stages.recipes.registered_start import fetched_version
from pipeline.stages.train.augmentation import without_training_only
from pipeline.support import known_files
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.paths import DOWNLOADS

LIMIT = 2**31  # bytes of a weights file; the largest of keras.applications has 1.4 billion
ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"  # how files begin


def start_model(key: str, start: StartSource, recipe: Recipe, classes: list[str]) -> keras.Model:
    """The layers of a recipe's model that start with weights, with them: all but the last one.

    The last one is among them if a registered version has it for the same classes. Raises PipelineError,
    naming the `key`, if the weights cannot be found or are not of the variant's network.
    """
    model = without_training_only(recipe.build())
    network = keras.Model(model.inputs[0], model.layers[-1].input, name=model.name)
    if start.model:
        path, known = fetched_version(f"{key}.model", start.model, start.sha256)
        found = keras_file.load(path)
        _check_network(f"{key}.model: {start.model}", found, model)
        if known == classes:
            network = model
        network.set_weights(found.get_weights()[: len(network.weights)])
        return network
    try:
        path = known_files.find(start.weights or [], start.sha256, DOWNLOADS / start.sha256, LIMIT)
    except PipelineError as error:
        raise PipelineError(f"{key}.weights: no intact file: {error}") from error
    _load(f"{key}.weights: {path}", path, network, recipe.settings.network)
    return network


def _load(where: str, path: Path, network: keras.Model, named: Network) -> None:
    """Give a network the weights of a file, which may be of an application with or without its head."""
    reason: Exception | None = None
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"weights{_suffix(where, path)}"  # by which Keras knows a file
        link.symlink_to(path.resolve())
        for candidate, target in _candidates(network, named):
            try:
                candidate.load_weights(link)
            except Exception as error:  # Keras raises almost anything
                reason = reason or error
                continue
            target.set_weights(candidate.get_weights()[: len(target.weights)])
            return
    raise PipelineError(f"{where}: its weights are not those of `network`: {in_a_line(reason)[:300]}")


def _candidates(network: keras.Model, named: Network) -> Iterator[tuple[keras.Model, keras.Model]]:
    """What the weights of a file may belong to, each with the part of the network that begins with them."""
    if named.name == "application":
        call = inspect.signature(networks.application).bind(None, **named.arguments)
        call.apply_defaults()
        backbone = next(layer for layer in network.layers if isinstance(layer, keras.Model))
        yield backbone, backbone
        yield applications.with_top(call.arguments["model"], call.arguments["alpha"]), backbone
    yield network, network


def _suffix(where: str, path: Path) -> str:
    """The suffix of a file of weights, by its content."""
    with path.open("rb") as file:
        beginning = file.read(len(HDF5))
    if beginning.startswith(ZIP):
        return ".keras"
    if beginning != HDF5:
        raise PipelineError(f"{where}: not a file of Keras weights: .h5, .weights.h5 or .keras")
    with h5py.File(path) as file:
        return ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"


def _check_network(where: str, found: keras.Model, model: keras.Model) -> None:
    """Raise PipelineError unless two models have the same layers with weights before their last ones."""
    theirs, ours = _layers(found), _layers(model)
    for number in range(max(len(theirs), len(ours)) - 1):
        one, other = (each[number] if number < len(each) - 1 else "none" for each in (theirs, ours))
        if one != other:
            raise PipelineError(
                f"{where}: is of another network: its layer {number + 1} with weights is {one}, "
                f"that of `network` {other}"
            )


def _layers(model: keras.Model) -> list[str]:
    """The kinds of all layers with weights, and their shapes."""
    leaves: list[Any] = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    return [
        f"{type(layer).__name__} {[tuple(weight.shape) for weight in layer.weights]}"
        for layer in leaves
        if layer.weights
    ]
