"""The served model, as MLflow loads it: an answer a row, and a clear refusal that names the row."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from pipeline.champion import serving
from pipeline.data import images
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from tests.keras_models import network_model

CLASSES = ["cat", "dog", "frog"]
BATCH_LIMIT = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.utils.set_random_seed(0)
    model_file.save(network_model("translate", len(CLASSES)), path)
    return path


@pytest.fixture(scope="module")
def served(file: Path) -> PyFuncModel:
    mlflow.pyfunc.save_model(
        path=file.parent / "served", **serving.described(file, CLASSES, IMAGES[0], BATCH_LIMIT)
    )
    return mlflow.pyfunc.load_model(str(file.parent / "served"))


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


def test_every_row_has_its_own_answer_in_its_place(served: PyFuncModel, file: Path) -> None:
    answers = answers_of(served, *IMAGES)
    expected = model_file.probabilities(model_file.load(file), IMAGES)
    assert len(answers) == len(IMAGES)
    for answer, row in zip(answers, expected, strict=True):
        assert set(answer) == {"label", "confidence", "probabilities"}
        assert answer["probabilities"] == pytest.approx(
            dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-6
        )
        assert answer["label"] == CLASSES[int(row.argmax())]
        assert answer["confidence"] == max(answer["probabilities"].values())


def test_rows_do_not_change_each_others_answers(served: PyFuncModel) -> None:
    together = answers_of(served, *IMAGES)
    for image, answer in zip(IMAGES, together, strict=True):
        alone = answers_of(served, image)[0]
        assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)


def test_darkest_and_brightest_pixels_are_allowed(served: PyFuncModel) -> None:
    assert len(answers_of(served, np.zeros((32, 32, 3), int), np.full((32, 32, 3), 255))) == 2


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_arrays_are_taken_as_lists_are(served: PyFuncModel, kind: Any) -> None:
    listed = answers_of(served, IMAGES[0])
    assert served.predict(pd.DataFrame({"pixels": [IMAGES[0].astype(kind)]})) == listed


def test_pixels_and_images_come_through_parquet(served: PyFuncModel, tmp_path: Path) -> None:
    rows = pd.DataFrame([{"pixels": IMAGES[0].tolist()}, {"image": images.encode_base64(IMAGES[1])}])
    rows.to_parquet(tmp_path / "rows.parquet")
    assert served.predict(pd.read_parquet(tmp_path / "rows.parquet")) == answers_of(served, *IMAGES[:2])


def test_an_image_is_answered_as_its_pixels_are(served: PyFuncModel) -> None:
    sent = pd.concat([serving.example_request(image) for image in IMAGES])
    assert served.predict(sent) == answers_of(served, *IMAGES)


def test_images_and_pixels_mix_in_one_request(served: PyFuncModel) -> None:
    rows = [{"image": images.encode_base64(IMAGES[0])}, {"pixels": IMAGES[1].tolist(), "image": None}]
    assert served.predict(pd.DataFrame(rows)) == answers_of(served, *IMAGES[:2])


def test_an_image_of_another_size_is_answered_as_what_decoding_gives(served: PyFuncModel) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    text = images.encode_base64(photo)
    assert served.predict(pd.DataFrame({"image": [text]})) == answers_of(
        served, images.decode(images.from_base64(text), 32)
    )


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


@pytest.mark.parametrize(
    "shape", [(31, 32, 3), (32, 32, 1), (32, 32, 4), (3, 32, 32)], ids=lambda shape: "x".join(map(str, shape))
)
def test_image_of_another_shape_is_refused_by_its_row(served: PyFuncModel, shape: tuple[int, ...]) -> None:
    refused = refusal(served, pixels(np.zeros(shape, int).tolist()))
    assert refused.startswith("row 1: pixels: 32 x 32 x 3 integers from 0 to 255 are allowed; received")
    assert refused.endswith(f"integers ({' x '.join(map(str, shape))})")


@pytest.mark.parametrize(
    "damage",
    [lambda image: image[0].pop(), lambda image: image[5][7].pop()],
    ids=["short row", "pixel of two numbers"],
)
def test_ragged_rows_are_refused_by_their_row(served: PyFuncModel, damage: Any) -> None:
    image = IMAGES[0].tolist()
    damage(image)
    refused = refusal(served, pixels(image))
    assert refused.startswith("row 1: pixels")
    assert refused.endswith("lists of different lengths")


@pytest.mark.parametrize(("value", "received"), [(256, "0 to 256"), (-1, "-1 to 0"), (2**40, "0 to 1099")])
def test_values_beyond_a_byte_are_refused_by_their_row(
    served: PyFuncModel, value: int, received: str
) -> None:
    image = np.zeros((32, 32, 3), np.int64)
    image[31, 31, 2] = value
    refused = refusal(served, pixels(image.tolist()))
    assert "row 1: pixels: 32 x 32 x 3 integers from 0 to 255 are allowed; received " + received in refused


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ((IMAGES[0] / 255).tolist(), "floats (32 x 32 x 3)"),
        (np.full((32, 32, 3), np.nan).tolist(), "floats (32 x 32 x 3)"),
        (np.full((32, 32, 3), None).tolist(), "other values (32 x 32 x 3)"),
        (np.full((32, 32, 3), 2**70).tolist(), "other values (32 x 32 x 3)"),
        (np.full((32, 32, 3), "0").tolist(), "text (32 x 32 x 3)"),
        ((IMAGES[0] > 127).tolist(), "booleans (32 x 32 x 3)"),
        ("image.png", "text (one value)"),
        (7, "integers (one value)"),
        ({"red": 1}, "other values (one value)"),
        ([], "floats (0)"),
        ([[[]]], "floats (1 x 1 x 0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_but_integers_is_refused(served: PyFuncModel, value: Any, received: str) -> None:
    allowed = "32 x 32 x 3 integers from 0 to 255 are allowed"
    assert refusal(served, pixels(value)) == f"row 1: pixels: {allowed}; received {received}"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no base64!", "base64 is allowed; received 10 characters of another kind"),
        ("aGVsbG8=", "a PNG, JPEG or WebP image is allowed; received none, or a damaged one"),
        ("", "a PNG, JPEG or WebP image is allowed; received none, or a damaged one"),
        (7, "a PNG, JPEG or WebP in base64 is allowed; received int"),
        (["a"], "a PNG, JPEG or WebP in base64 is allowed; received list"),
    ],
)
def test_what_is_no_image_is_refused_by_its_row(served: PyFuncModel, value: Any, reason: str) -> None:
    rows = [{"image": images.encode_base64(IMAGES[0])}, {"image": value}]
    assert refusal(served, rows) == f"row 1: image: {reason}"


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_neither_and_both_are_refused_by_their_row(served: PyFuncModel, nothing: Any) -> None:
    good = {"image": images.encode_base64(IMAGES[0]), "pixels": nothing}
    allowed = "row 1: exactly one of image and pixels is allowed; received"
    assert refusal(served, [good, {"image": nothing, "pixels": nothing}]) == f"{allowed} neither"
    assert refusal(served, [good, good | {"pixels": IMAGES[0].tolist()}]) == f"{allowed} both"


def test_no_row_and_no_known_column_are_refused(served: PyFuncModel) -> None:
    for rows in ([], [{"picture": 1}]):
        refused = refusal(served, rows)
        assert refused == "rows with image or pixels: 1 to 6 are allowed in a request; received 0"


def test_as_many_rows_as_the_limit_are_answered_and_no_more(served: PyFuncModel) -> None:
    assert len(answers_of(served, *[IMAGES[0]] * BATCH_LIMIT)) == BATCH_LIMIT
    refused = refusal(served, [{"pixels": IMAGES[0].tolist()}] * (BATCH_LIMIT + 1))
    assert refused == "rows with image or pixels: 1 to 6 are allowed in a request; received 7"


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
    served: PyFuncModel, file: Path, tmp_path: Path, part: str, before: bytes, named: str
) -> None:
    del served  # it is saved
    damaged = tmp_path / "damaged"
    shutil.copytree(file.parent / "served", damaged)
    content = bytearray((damaged / part).read_bytes())
    content[content.index(before) + len(before)] ^= 1
    (damaged / part).write_bytes(content)
    with pytest.raises(MlflowException, match=rf"{named}: damaged: registered with SHA-256 [0-9a-f]{{64}}"):
        mlflow.pyfunc.load_model(str(damaged))


def test_it_loads_without_the_repository_and_without_pickles(served: PyFuncModel, file: Path) -> None:
    del served  # it is saved
    code = (
        "import mlflow, sys; model = mlflow.pyfunc.load_model('served');"
        "print(model.predict(model.input_example)[0]['label'], 'pipeline' in sys.modules)"
    )
    environment = {"PATH": os.environ["PATH"], "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=file.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    label, imported = done.stdout.split()
    assert label in CLASSES
    assert imported == "False"
