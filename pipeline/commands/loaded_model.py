"""Load any MLflow image classifier, with the classes and images of its data.

For `classify`, `serve` and the page. The served model, and the models that trainings log, name their classes
and data. Any other model must map uint8 (n, size, size, 3) to probabilities (n, classes).
"""

import contextlib
import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.params import Params
from pipeline.stages.promote.registration import is_intact
from pipeline.support import mlflow_store
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.mlflow_registry import CHAMPION, PREVIOUS, version_at
from pipeline.support.paths import PREPARED, RAW

# Where test images may lie: those of params.yaml, and the quickstart's.
DATA = (PREPARED, Path("quickstart") / PREPARED)
BATCH = 256
TRACKED = ("models:", "runs:")  # the URIs of models that are looked up in MLflow's store


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded from `uri`, the names of its classes, and the images of its data that are here.

    `parts` has `test` and `train`, each with `images` uint8 (n, size, size, 3) and `labels` int64 (n,), in
    the order of their source; so `train` has the validation images, too.
    """

    uri: str
    model: PyFuncModel
    classes: list[str]
    size: int  # images are size x size pixels
    fit: str  # how image files become such squares
    parts: dict[str, dict[str, np.ndarray]]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of uint8 images (n, size, size, 3).

        Raises PipelineError if the model does not give them.
        """
        size = (self.model.model_config or {}).get("batch_limit", BATCH)
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        try:
            found = np.concatenate([self._of_batch(batch) for batch in batches])
        except Exception as error:  # what a model raises depends on its kind
            raise PipelineError(f"{self.uri}: cannot classify images: {in_a_line(error)[:300]}") from error
        expected = (len(images), len(self.classes))
        if found.shape != expected:
            raise PipelineError(
                f"{self.uri}: must give probabilities of shape {expected}; received {found.shape}"
            )
        return found

    def label(self, row: np.ndarray) -> str | None:
        """The most probable class by these probabilities; None if the model refuses to name one."""
        if row.max() < ((self.model.model_config or {}).get("refuse_below") or 0):
            return None
        return self.classes[int(row.argmax())]

    def _of_batch(self, images: np.ndarray) -> np.ndarray:
        if "classes" not in (self.model.model_config or {}):  # which the served model has
            with contextlib.redirect_stdout(io.StringIO()):  # Keras draws a progress bar
                return np.asarray(self.model.predict(images))
        answers: Any = self.model.predict(pd.DataFrame({"pixels": list(images)}))
        return np.array([list(answer["probabilities"].values()) for answer in answers])


def champion_uri() -> str:
    """The champion of the dataset that params.yaml names."""
    return f"models:/{Params.read().data.dataset}@{CHAMPION}"


def check(uri: str) -> None:
    """Raise PipelineError if MLflow has no such model."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if uri.startswith(TRACKED):
        mlflow_store.check_existing(uri)
    _tried(uri, mlflow.models.get_model_info)


def load_model(uri: str) -> PyFuncModel:
    """Load any MLflow model. Raises PipelineError if that fails."""
    import pipeline.core.backend  # noqa: F401  quiet, before MLflow imports TensorFlow

    check(uri)
    return _tried(uri, mlflow.pyfunc.load_model)


def load(uri: str) -> LoadedModel:
    """Load any MLflow model that classifies images. Raises PipelineError if that fails."""
    model = load_model(uri)
    metadata, config = model.metadata.metadata or {}, model.model_config or {}
    wanted = metadata.get("data_digest")
    found = [(folder, read_facts(folder / "split")) for folder in DATA if (folder / "split").is_dir()]
    fitting = [(folder, facts) for folder, facts in found if wanted in {None, facts["data_digest"]}]
    folder, facts = fitting[0] if fitting else (None, {})
    classes = config.get("classes") or metadata.get("classes") or facts.get("classes")
    if classes is None:
        raise PipelineError(f"{uri}: has no class names, and there is no {PREPARED}/split to read them from")
    fit = {"fit": "crop"} | facts | metadata | config
    size, parts = config.get("image_size") or _size(model), _parts(folder) if folder else {}
    return LoadedModel(uri, model, list(classes), size, fit["fit"], parts)


@cache
def load_once(uri: str) -> LoadedModel:
    """Load a model for all visitors of a page."""
    return load(uri)


def _parts(prepared: Path) -> dict[str, dict[str, np.ndarray]]:
    """The parts of the data of which a folder is the prepared data."""
    parts = {"test": read_arrays(prepared / "test")}
    if (raw := prepared.with_name(RAW.name)).is_dir():
        arrays = read_arrays(raw)
        parts["train"] = {"images": arrays["train_images"], "labels": arrays["train_labels"]}
    return parts


def _tried(uri: str, function: Callable[[str], Any]) -> Any:
    """The result of a function of MLflow for a model. Raises PipelineError if it fails."""
    try:
        return function(uri)
    except Exception as error:  # what MLflow raises depends on the kind of URI and of model
        hint = _hint(uri) if uri.startswith(TRACKED) else ""  # only then is the store checked
        raise PipelineError(f"{uri}: cannot be loaded: {in_a_line(error).rstrip('.')}{hint}") from error


def _size(model: PyFuncModel) -> int:
    """The width of a model's input, by its signature."""
    schema = model.metadata.get_input_schema()
    shape = list(schema.inputs[0].shape) if schema and schema.is_tensor_spec() else []
    return int(shape[1]) if len(shape) == 4 else 32


def _hint(uri: str) -> str:
    """How to restore the files of a model that cannot be loaded, or which champions there are."""
    try:
        for name, alias in re.findall(rf"^models:/(.+)@({CHAMPION}|{PREVIOUS})$", uri):
            if (version := version_at(name, alias)) and not is_intact(version):
                return "; its files were deleted: `make sync`, where it was trained, registers it again"
        registered = mlflow.MlflowClient().search_registered_models()
    except MlflowException:
        return ""
    names = [f"models:/{model.name}@{CHAMPION}" for model in registered if CHAMPION in model.aliases]
    return f"; champions here: {', '.join(names)}" if names else ""
