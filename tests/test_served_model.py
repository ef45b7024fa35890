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

from pipeline.champion import serving
from pipeline.data import folders, images
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from tests.keras_models import listed, network_model
from tests.test_images import file as file_of

CLASSES = ["cat", "dog", "frog"]
BATCH_LIMIT = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def save(folder: Path, model: keras.Model, example: np.ndarray, views: str | None = None) -> PyFuncModel:
    """The model in folder/model.keras, and served in folder/served, as it is loaded."""
    model_file.save(model, folder / "model.keras")
    described = serving.described(folder / "model.keras", CLASSES, example, BATCH_LIMIT, views)
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


def refusal(served: PyFuncModel, rows: list[dict[str, Any]], **params: Any) -> str:
    """Why rows are refused: one line, which the server answers as it stands, with status 400."""
    with pytest.raises(MlflowException) as caught:
        served.predict(pd.DataFrame(rows), params=params)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    caught.value.message = "the whole request"  # as MLflow's server does
    assert caught.value.message == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(value: Any) -> list[dict[str, Any]]:
    """A good row, and one of this value."""
    return [{"pixels": IMAGES[1].tolist()}, {"pixels": value}]


def test_every_row_has_its_own_answer_in_its_place(served: PyFuncModel, folder: Path) -> None:
    answers = answers_of(served, *IMAGES)
    expected = model_file.probabilities(model_file.load(folder / "model.keras"), IMAGES)
    assert len(answers) == len(IMAGES)
    for answer, row in zip(answers, expected, strict=True):
        assert set(answer) == {"label", "confidence", "probabilities"}
        assert answer["probabilities"] == pytest.approx(
            dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-6
        )
        assert answer["label"] == CLASSES[int(row.argmax())]
        assert answer["confidence"] == max(answer["probabilities"].values())
    alone = [answers_of(served, image)[0]["probabilities"] for image in IMAGES]
    assert alone == [pytest.approx(answer["probabilities"], abs=1e-6) for answer in answers]


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_arrays_are_taken_as_lists_are(served: PyFuncModel, kind: Any) -> None:
    ends = np.stack([IMAGES[0], np.zeros_like(IMAGES[0]), np.full_like(IMAGES[0], 255)])
    arrays = pd.DataFrame({"pixels": list(ends.astype(kind))})
    assert served.predict(arrays) == answers_of(served, *ends)


def test_an_image_is_answered_as_its_pixels_are_also_from_parquet(
    served: PyFuncModel, tmp_path: Path
) -> None:
    sent = pd.concat([serving.example_request(image) for image in IMAGES])
    assert served.predict(sent) == answers_of(served, *IMAGES)
    rows = [{"image": images.encode_base64(IMAGES[0])}, {"pixels": IMAGES[1].tolist(), "image": None}]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    for mixed in (pd.DataFrame(rows), pd.read_parquet(tmp_path / "rows.parquet")):
        assert served.predict(mixed) == answers_of(served, *IMAGES[:2])


def test_served_pixels_are_prepared_pixels(served: PyFuncModel, tmp_path: Path) -> None:
    """A photograph of any shape is answered as the pixels that `fetch` makes of the same file."""
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    turned = photo.rotate(90, expand=True)
    for part in ("train", "test"):
        for name, image in (("cat/1.jpg", photo), ("dog/1.PNG", photo), ("frog/1.webp", turned)):
            (tmp_path / part / name).parent.mkdir(parents=True)
            image.save(tmp_path / part / name)
    fetched = folders.read({part: tmp_path / part for part in ("train", "test")}, 32)
    files = [next((tmp_path / "test" / CLASSES[label]).iterdir()) for label in fetched.test_labels]
    sent = pd.DataFrame({"image": [base64.b64encode(file.read_bytes()).decode() for file in files]})
    assert served.predict(sent) == answers_of(served, *fetched.test_images)


def test_the_size_of_images_is_the_models(tmp_path: Path) -> None:
    large = np.full((48, 48, 3), 7, np.uint8)
    served = save(tmp_path, listed(keras.layers.Flatten(), classes=3, size=48), large)
    assert served.predict(serving.example_request(large)) == answers_of(served, large)
    assert "48 x 48 x 3 integers" in refusal(served, pixels(IMAGES[0].tolist()))


def test_answers_are_means_over_the_views(tmp_path: Path) -> None:
    model = network_model("translate", len(CLASSES))
    answers = answers_of(save(tmp_path, model, IMAGES[0], "mirror_shift"), *IMAGES)
    found = [list(answer["probabilities"].values()) for answer in answers]
    assert np.allclose(found, model_file.probabilities(model, IMAGES, "mirror_shift"), atol=1e-6)


def test_top_k_gives_the_most_probable_classes_first(served: PyFuncModel) -> None:
    everything = answers_of(served, IMAGES[0])[0]
    most: Any = served.predict(request(IMAGES[0]), params={"top_k": 2})
    [most] = most
    assert (most["label"], most["confidence"]) == (everything["label"], everything["confidence"])
    ordered = sorted(everything["probabilities"].items(), key=lambda item: -item[1])
    assert list(most["probabilities"].items()) == ordered[:2]


@pytest.mark.parametrize("top_k", [0, -1, 4])
def test_top_k_beyond_the_classes_is_refused(served: PyFuncModel, top_k: int) -> None:
    refused = refusal(served, [{"pixels": IMAGES[0].tolist()}], top_k=top_k)
    assert refused == f"params: top_k: 1 to 3 are allowed; received {top_k}"


def changed(value: Any) -> list[Any]:
    """Pixels of which the last value is another."""
    image = np.zeros((32, 32, 3), int).tolist()
    image[31][31][2] = value
    return image


RAGGED = [*IMAGES[0, :31].tolist(), [[1, 2, 3]]]
BAD_PIXELS: list[tuple[Any, str]] = [
    (np.zeros((31, 32, 3), int).tolist(), "integers (31 x 32 x 3)"),
    (RAGGED, "lists of different lengths"),
    (changed(256), "0 to 256"),
    (changed(True), "booleans among them"),
    (changed(float("nan")), "floats (32 x 32 x 3)"),
    (changed(2**70), "other values (32 x 32 x 3)"),
    ("image.png", "text (one value)"),
    ([], "floats (0)"),
]


@pytest.mark.parametrize(("value", "received"), BAD_PIXELS, ids=range(len(BAD_PIXELS)))
def test_anything_but_integers_is_refused_by_its_row(served: PyFuncModel, value: Any, received: str) -> None:
    allowed = "32 x 32 x 3 integers from 0 to 255 are allowed"
    assert refusal(served, pixels(value)) == f"row 1: pixels: {allowed}; received {received}"


FORTY_MEGAPIXELS = base64.b64encode(file_of(Image.new("L", (8_000, 5_000)))).decode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no base64!", "base64 is allowed; received 10 characters that are not"),
        (7, "a PNG, JPEG or WebP in base64 is allowed; received int"),
    ],
)
def test_what_is_no_image_is_refused_by_its_row(served: PyFuncModel, value: Any, reason: str) -> None:
    rows = [{"image": images.encode_base64(IMAGES[0])}, {"image": value}]
    assert refusal(served, rows) == f"row 1: image: {reason}"


def test_many_pixels_in_one_request_are_refused_before_they_are_decoded(served: PyFuncModel) -> None:
    refused = refusal(served, [{"image": FORTY_MEGAPIXELS}] * 3)
    assert refused == "row 2: image: at most 100,000,000 pixels are allowed in all files of a request"


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_neither_and_both_are_refused_by_their_row(served: PyFuncModel, nothing: Any) -> None:
    good = {"image": images.encode_base64(IMAGES[0]), "pixels": nothing}
    allowed = "row 1: exactly one of image and pixels is allowed; received"
    assert refusal(served, [good, {"image": nothing, "pixels": nothing}]) == f"{allowed} neither"
    assert refusal(served, [good, good | {"pixels": IMAGES[0].tolist()}]) == f"{allowed} both"


def test_as_many_rows_as_the_limit_are_answered_and_no_other_number(served: PyFuncModel) -> None:
    good = {"pixels": IMAGES[0].tolist()}
    assert len(answers_of(served, *[IMAGES[0]] * BATCH_LIMIT)) == BATCH_LIMIT
    allowed = "rows with image or pixels: 1 to 6 are allowed in a request; received"
    for rows, received in (([good] * (BATCH_LIMIT + 1), 7), ([], 0), ([{"picture": 1}], 0)):
        assert refusal(served, rows) == f"{allowed} {received}"


@pytest.mark.parametrize(
    ("part", "before", "named"),
    [
        ("artifacts/model.keras", b"model.weights.h5", "artifacts/model.keras"),
        ("artifacts/images.py", b"def ", "artifacts/images.py"),
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
