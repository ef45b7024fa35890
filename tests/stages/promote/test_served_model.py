"""The served model, as MLflow loads it: an answer a row, and a clear refusal that names the row."""

import base64
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from PIL import Image

from pipeline.core import keras_file, prediction
from pipeline.core.backend import keras
from pipeline.shared import image_decoding
from pipeline.shared.temperature import scaled
from pipeline.stages.fetch import folders
from pipeline.stages.promote import packaging
from tests.keras_models import listed, network_model

CLASSES = ["cat", "dog", "frog"]
BATCH_LIMIT = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def save(folder: Path, model: keras.Model, example: np.ndarray, **serving: Any) -> PyFuncModel:
    """The model in folder/model.keras, and served in folder/served, as it is loaded."""
    keras_file.save(model, folder / "model.keras")
    described = packaging.described(
        folder / "model.keras", CLASSES, example, packaging.Serving(BATCH_LIMIT, **serving)
    )
    mlflow.pyfunc.save_model(path=folder / "served", **described)
    return mlflow.pyfunc.load_model(str(folder / "served"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def served(folder: Path) -> PyFuncModel:
    keras.utils.set_random_seed(0)
    return save(folder, network_model("translate", len(CLASSES)), IMAGES[0])


def request(*images: Any) -> pd.DataFrame:
    return pd.DataFrame({"pixels": [np.asarray(image).tolist() for image in images]})


def answers_of(served: PyFuncModel, *images: Any) -> list[dict[str, Any]]:
    answers = served.predict(request(*images))
    assert isinstance(answers, list)
    return answers


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_arrays_are_taken_as_lists_are(served: PyFuncModel, kind: Any) -> None:
    ends = np.stack([IMAGES[0], np.zeros_like(IMAGES[0]), np.full_like(IMAGES[0], 255)])
    arrays = pd.DataFrame({"pixels": list(ends.astype(kind))})
    assert served.predict(arrays) == answers_of(served, *ends)


def test_an_image_is_answered_as_its_pixels_are_also_from_parquet(
    served: PyFuncModel, tmp_path: Path
) -> None:
    sent = pd.concat([packaging.example_request(image) for image in IMAGES])
    assert served.predict(sent) == answers_of(served, *IMAGES)
    rows = [{"image": image_decoding.encode_base64(IMAGES[0])}, {"pixels": IMAGES[1].tolist(), "image": None}]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    for mixed in (pd.DataFrame(rows), pd.read_parquet(tmp_path / "rows.parquet")):
        assert served.predict(mixed) == answers_of(served, *IMAGES[:2])


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_served_pixels_are_prepared_pixels(tmp_path: Path, fit: str) -> None:
    """A photograph of any shape is answered as the pixels that `fetch` makes of the same file."""
    served = save(tmp_path, listed(keras.layers.Flatten(), classes=3, size=32), IMAGES[0], fit=fit)
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    turned = photo.rotate(90, expand=True)
    for part in ("train", "test"):
        for name, image in (("cat/1.jpg", photo), ("dog/1.PNG", photo), ("frog/1.webp", turned)):
            (tmp_path / part / name).parent.mkdir(parents=True)
            image.save(tmp_path / part / name)
    fetched = folders.read({part: tmp_path / part for part in ("train", "test")}, 32, 0.2, tmp_path, fit=fit)
    files = [next((tmp_path / "test" / CLASSES[label]).iterdir()) for label in fetched.test_labels]
    sent = pd.DataFrame({"image": [base64.b64encode(file.read_bytes()).decode() for file in files]})
    assert served.predict(sent) == answers_of(served, *fetched.test_images[:])


def test_the_size_of_images_is_the_models(tmp_path: Path) -> None:
    large = np.full((48, 48, 3), 7, np.uint8)
    served = save(tmp_path, listed(keras.layers.Flatten(), classes=3, size=48), large)
    assert served.predict(packaging.example_request(large)) == answers_of(served, large)
    with pytest.raises(MlflowException, match="row 0: pixels: must be 48 x 48 x 3 integers from 0 to 255"):
        answers_of(served, IMAGES[0])


def test_answers_are_means_over_the_views(tmp_path: Path) -> None:
    model = network_model("translate", len(CLASSES))
    answers = answers_of(save(tmp_path, model, IMAGES[0], views="mirror_shift"), *IMAGES)
    found = [list(answer["probabilities"].values()) for answer in answers]
    assert np.allclose(found, prediction.probabilities(model, IMAGES, "mirror_shift"), atol=1e-6)


def test_answers_are_scaled_and_an_unsure_one_has_no_label(folder: Path, served: PyFuncModel) -> None:
    before = answers_of(served, *IMAGES)
    confidence = sorted(answer["confidence"] for answer in before)
    model = keras.saving.load_model(folder / "model.keras")
    least = scaled(prediction.probabilities(model, IMAGES), 0.5).max(axis=1)
    unsure = float(np.sort(least)[2])  # of five
    scaling = save(folder / "scaled", model, IMAGES[0], temperature=0.5, refuse_below=unsure)
    after = answers_of(scaling, *IMAGES)
    assert [answer["label"] is None for answer in after] == list(least < unsure)
    for old, new in zip(before, after, strict=True):
        assert new["label"] in {old["label"], None}
        assert list(new["probabilities"].values()) == pytest.approx(
            scaled(np.array([list(old["probabilities"].values())]), 0.5)[0], abs=1e-6
        )
        assert new["confidence"] == max(new["probabilities"].values())
    assert confidence != sorted(answer["confidence"] for answer in after)
    label = scaling.metadata.get_output_schema().inputs[0]
    assert (label.name, label.required) == ("label", False)


@pytest.mark.parametrize(
    ("part", "before", "named"),
    [
        ("artifacts/model.keras", b"model.weights.h5", "artifacts/model.keras"),
        ("artifacts/image_decoding.py", b"def ", "artifacts/image_decoding.py"),
        ("served_model.py", b"The model that is ser", "code"),
        ("MLmodel", b"classes:\n      - ca", "classes"),
    ],
)
def test_a_flipped_byte_of_what_was_registered_is_refused(
    served: PyFuncModel, folder: Path, tmp_path: Path, part: str, before: bytes, named: str
) -> None:
    del served  # it is saved
    damaged = tmp_path / "damaged"
    shutil.copytree(folder / "served", damaged)
    content = bytearray((damaged / part).read_bytes())
    content[content.index(before) + len(before)] ^= 1
    (damaged / part).write_bytes(content)
    with pytest.raises(MlflowException, match=rf"{named}: damaged: registered with SHA-256 [0-9a-f]{{64}}"):
        mlflow.pyfunc.load_model(str(damaged))
