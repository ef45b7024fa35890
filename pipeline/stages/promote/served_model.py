"""The model that is served: an image or its pixels in, a class's name and probabilities out.

MLflow stores this file with the model and runs it to load the model ("models from code"). It imports
nothing of the pipeline: `image_decoding.py`, `test_time_views.py` and `temperature.py`, which it needs, are
stored beside the Keras model. Nothing is unpickled, and a file that differs from the registered one is not
loaded.
"""

import hashlib
import json
import os
import runpy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

COLUMNS = ("image", "pixels")
PIXEL_LIMIT = 100_000_000  # of all image files of a request together, before they are resized


class Refused(MlflowException):
    """A request that has no answer: HTTP status 400 and one line.

    MLflow's server writes the request itself before the message of what `predict` raises; the message
    of this one stays as it was raised.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """What is wrong, where, what was expected and what was received."""
        return str(self)

    @message.setter
    def message(self, changed: str) -> None:
        """Leave it as it is."""


class Classifier(PythonModel):
    """Names the class of each row's `image`, a file in base64, or `pixels`, integers from 0 to 255."""

    def load_context(self, context: Any) -> None:
        """Check and read the Keras model and what belongs to it, and trace the forward pass for any batch."""
        os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
        import keras  # here, since registering a model only imports this module
        import tensorflow as tf

        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")
        _check(context)
        model = keras.saving.load_model(context.artifacts["model"], compile=False)
        self.classes: list[str] = context.model_config["classes"]
        self.batch_limit: int = context.model_config["batch_limit"]
        self.refuse_below: float = context.model_config["refuse_below"] or 0
        # Run by their files: by their names, another model's copies could already be loaded in their place.
        run = (runpy.run_path(context.artifacts[part]) for part in ("images", "views", "temperature"))
        self.images, views, scaling = (SimpleNamespace(**names) for names in run)
        self.fit: str = context.model_config["fit"]
        self.shape = (context.model_config["image_size"], context.model_config["image_size"], 3)
        self.decoder = ThreadPoolExecutor(1)
        chosen, temperature = context.model_config["views"], context.model_config["temperature"]
        function = tf.function(lambda images: views.average(model, images, chosen))
        forward = function.get_concrete_function(tf.TensorSpec((None, *self.shape), tf.uint8))
        self.forward = lambda images: scaling.scaled(forward(tf.constant(images)).numpy(), temperature)
        self.forward(np.zeros((1, *self.shape), np.uint8))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer a row: `label`, `confidence` and `probabilities` by class name.

        The label is None if the confidence is below `refuse_below`. All classes in their order; with `top_k`
        so many, the most probable first.
        """
        del context
        top_k = (params or {}).get("top_k")
        if top_k is not None and not 1 <= top_k <= len(self.classes):
            raise Refused(f"params: top_k: must be from 1 to {len(self.classes)}; received {top_k}")
        if not 1 <= len(model_input) <= self.batch_limit:
            raise Refused(
                f"rows with {' or '.join(COLUMNS)}: a request must have 1 to {self.batch_limit}; "
                f"received {len(model_input)}"
            )
        images = np.stack(list(self._pixels(model_input)))
        return [self._answer(row, top_k) for row in self.forward(images)]

    def _pixels(self, model_input: pd.DataFrame) -> Iterator[np.ndarray]:
        """Each row's uint8 (size, size, 3); raises Refused, naming the row, if it has none.

        A file of a few bytes can hold pixels that take a hundred megabytes. So their number is limited in
        a request, by the files' headers, and one thread decodes them all, whatever the number of requests:
        each thread would keep memory of its own.
        """
        left = PIXEL_LIMIT
        for row, (name, value) in enumerate(_given(model_input)):
            try:
                if name == "pixels":
                    yield _checked(value, self.shape)
                    continue
                content = self._file(value)
                left -= self.images.count_pixels(content)
                if left < 0:
                    raise ValueError(
                        f"a request's files must have at most {PIXEL_LIMIT:,} pixels; received more"
                    )
                yield self._decoded(content)
            except ValueError as error:
                raise Refused(f"row {row}: {name}: {error}") from error

    def _decoded(self, content: bytes) -> np.ndarray:
        decode = partial(self.images.decode, content, self.shape[0], fit=self.fit)
        pixels: np.ndarray = self.decoder.submit(decode).result()
        return pixels

    def _file(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise ValueError(f"must be a PNG, JPEG or WebP in base64; received {type(value).__name__}")
        content: bytes = self.images.from_base64(value)
        return content

    def _answer(self, row: np.ndarray, top_k: int | None) -> dict[str, Any]:
        shown = range(len(row)) if top_k is None else (-row).argsort(stable=True)[:top_k]
        likeliest = int(row.argmax())
        confidence = float(row[likeliest])
        return {
            "label": self.classes[likeliest] if confidence >= self.refuse_below else None,
            "confidence": confidence,
            "probabilities": {self.classes[i]: float(row[i]) for i in shown},
        }


def _given(rows: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """The column and value of each row; raises Refused, naming the row, unless there is exactly one."""
    columns = {name: rows[name].tolist() for name in COLUMNS if name in rows}
    for row in range(len(rows)):
        given = [(name, values[row]) for name, values in columns.items() if not _missing(values[row])]
        if len(given) != 1:
            received = "both" if given else "neither"
            raise Refused(f"row {row}: must have exactly one of {' and '.join(COLUMNS)}; received {received}")
        yield given[0]


def _checked(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of this shape of nested lists or an array; ValueError of anything else."""
    wanted = f"must be {' x '.join(map(str, shape))} integers from 0 to 255; received"
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.shape == shape:
        pixels, low, high = value, value.min(), value.max()
    else:
        try:
            numbers = _integers(_as_lists(value), shape)
        except ValueError as error:
            raise ValueError(f"{wanted} {error}") from error
        low, high = min(numbers), max(numbers)
        pixels = np.array(numbers if 0 <= low <= high <= 255 else 0)
    if low < 0 or high > 255:
        raise ValueError(f"{wanted} {low} to {high}")
    return pixels.astype(np.uint8).reshape(shape)


def _integers(value: Any, shape: tuple[int, ...]) -> list[int]:
    """The numbers of nested lists of this shape; ValueError, saying what was received, of anything else.

    NumPy must not see the lists before: it makes all texts among them as long as the longest.
    """
    parts = [value]
    for size in shape:
        if {type(part) for part in parts} != {list}:
            raise ValueError(f"{_kinds(parts)} in place of lists of {size}")
        lengths = {len(part) for part in parts}
        if lengths != {size}:
            ends = " to ".join(map(str, sorted({min(lengths), max(lengths)})))
            raise ValueError(f"lists of {ends} in place of {size}")
        parts = list(chain.from_iterable(parts))
    if {type(part) for part in parts} != {int}:  # nor bool, which is a subclass
        raise ValueError(_kinds(parts))
    return parts


def _kinds(parts: list[Any]) -> str:
    """What values are, such as `floats and integers`."""
    words = {int: "integers", float: "floats", bool: "booleans", str: "text", list: "lists", dict: "objects"}
    return " and ".join(sorted({words.get(type(part), "other values") for part in parts}))


def _as_lists(value: Any) -> Any:
    """Arrays, and arrays of arrays as Parquet gives them, as lists."""
    if isinstance(value, np.ndarray):
        return [_as_lists(part) for part in value] if value.dtype.kind == "O" else value.tolist()
    return value


def _missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _check(context: Any) -> None:
    """Raise MlflowException, naming the part, if a part of the model is not the registered one."""
    registered: dict[str, str] = context.model_config.get("sha256", {})
    content = {part: Path(path).read_bytes() for part, path in context.artifacts.items()}
    content |= {"code": Path(__file__).read_bytes()}
    content |= {"classes": json.dumps(context.model_config["classes"]).encode()}
    for part, received in content.items():
        expected, found = registered.get(part), hashlib.sha256(received).hexdigest()
        if found != expected:
            raise MlflowException(
                f"{context.artifacts.get(part, part)}: damaged: registered with SHA-256 {expected}, "
                f"received {found}; serve another version, or register the model again"
            )


mlflow.models.set_model(Classifier())
