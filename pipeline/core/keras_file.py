"""Saves and loads Keras models, in files whose bytes depend only on the model."""

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.core.backend import keras
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.new_files import replacing

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip archive can hold


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file in a canonical form: the same model gives the same bytes."""
    with TemporaryDirectory() as folder, replacing(path) as new:
        dated = Path(folder) / "model.keras"
        model.save(dated)
        with zipfile.ZipFile(dated) as source, zipfile.ZipFile(new, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name.endswith(".json"):
                    content = json.dumps(_canonical(json.loads(content), {}), sort_keys=True).encode()
                target.writestr(zipfile.ZipInfo(name, EPOCH), content)


def _canonical(node: Any, seen: dict[int, int]) -> Any:
    """A model's configuration without the date of saving, and with shared objects numbered in their order:
    Keras identifies them by their addresses in memory."""
    if isinstance(node, list):
        return [_canonical(item, seen) for item in node]
    if not isinstance(node, dict):
        return node
    fixed = {key: _canonical(value, seen) for key, value in node.items()}
    if "date_saved" in fixed:
        fixed["date_saved"] = "1980-01-01@00:00:00"
    if "shared_object_id" in fixed:
        fixed["shared_object_id"] = seen.setdefault(fixed["shared_object_id"], len(seen))
    return fixed


def set_weights(model: keras.Model, weights: list[Any]) -> None:
    """As the method of Keras (3.15), which leaves Normalization layers with the old mean and variance."""
    model.set_weights(weights)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def load(path: Path) -> keras.Model:
    """Read a model from a `.keras` file. Raises OSError or PipelineError, naming the file."""
    path.open("rb").close()  # Keras reports a file without read permission as missing
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises almost anything
        reason = in_a_line(error)
        raise PipelineError(f"{path}: not a readable Keras model: {reason}") from error
