"""A numbered version of a registered model whose weights a variant starts with."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow

from pipeline.core.arrays import write_json
from pipeline.support import mlflow_registry, mlflow_store
from pipeline.support.digests import file_digest
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.json_and_csv import read_json
from pipeline.support.new_files import replacing
from pipeline.support.paths import DOWNLOADS


def fetched_version(key: str, uri: str, sha256: str) -> tuple[Path, list[str]]:
    """The Keras model of a version, and the names of its classes.

    Both are kept in data/download/models, so the registry is asked once. Raises PipelineError, naming the
    `key`, if the model is not there or has another SHA-256, and for an alias, which may move.
    """
    if "@" in uri:
        raise PipelineError(f"{key}: must be models:/NAME/VERSION, since an alias moves; {_meant(uri)}")
    kept = DOWNLOADS / uri.replace(":/", "/")
    model, classes = kept / "model.keras", kept / "classes.json"
    if not (classes.is_file() and model.is_file() and file_digest(model) == sha256):
        _fetch(f"{key}: {uri}", uri, sha256, model, classes)
    return model, read_json(classes, list[str])


def _fetch(where: str, uri: str, sha256: str, model: Path, classes: Path) -> None:
    """Download a version's Keras model, and write the names of its classes."""
    mlflow_store.check_existing(where)
    with TemporaryDirectory() as folder:
        try:
            names = (mlflow.models.get_model_info(uri).metadata or {})["classes"]
            path = mlflow.artifacts.download_artifacts(f"{uri}/{mlflow_registry.MODEL}", dst_path=folder)
        except Exception as error:  # what MLflow raises depends on its store
            raise PipelineError(f"{where}: cannot be loaded: {in_a_line(error)[:300]}") from error
        if (received := file_digest(Path(path))) != sha256:
            raise PipelineError(f"{where}: expected SHA-256 {sha256}, received {received}")
        write_json(classes, names)
        with replacing(model) as new:
            new.write_bytes(Path(path).read_bytes())


def _meant(uri: str) -> str:
    """What to write in place of an alias, if the registry says where it is."""
    name, alias = uri.removeprefix("models:/").split("@")
    with suppress(Exception):  # without an answer, the line is as true
        mlflow_store.check_existing(uri)
        version = mlflow_registry.version_at(name, alias)
        if version is not None:
            digest = version.tags[mlflow_registry.DIGEST]
            return f"now {uri} is model: models:/{name}/{version.version}, sha256: {digest}"
    return f"received {uri}"
