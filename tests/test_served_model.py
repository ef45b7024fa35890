"""The served model, as MLflow loads it: an answer a row, and a clear refusal that names the row."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from pipeline import models, registry
from pipeline.backend import keras

CLASSES = ["cat", "dog", "frog"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.utils.set_random_seed(0)
    models.save(models.build("translate", len(CLASSES), "translate"), path)
    return path


@pytest.fixture(scope="module")
def served(file: Path) -> PyFuncModel:
    mlflow.pyfunc.save_model(
        path=file.parent / "served",
        python_model=str(registry.SERVED_MODEL),
        artifacts={"model": str(file)},
        model_config={"classes": CLASSES},
        signature=registry.signature(),
        input_example=registry.example_request(IMAGES[0]),
        pip_requirements=["mlflow"],
    )
    return mlflow.pyfunc.load_model(str(file.parent / "served"))


def request(*images: Any) -> pd.DataFrame:
    return pd.DataFrame({"pixels": [np.asarray(image).tolist() for image in images]})


def answers_of(served: PyFuncModel, *images: Any) -> list[dict[str, Any]]:
    answers = served.predict(request(*images))
    assert isinstance(answers, list)
    return answers


def refusal(served: PyFuncModel, *rows: Any) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        served.predict(pd.DataFrame({"pixels": list(rows)}))
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_row_has_its_own_answer_in_its_place(served: PyFuncModel, file: Path) -> None:
    answers = answers_of(served, *IMAGES)
    expected = models.probabilities(models.load(file), IMAGES)
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


def test_arrays_are_taken_as_lists_are(served: PyFuncModel) -> None:
    listed = answers_of(served, IMAGES[0])
    assert served.predict(pd.DataFrame({"pixels": [IMAGES[0].astype(np.int64)]})) == listed


@pytest.mark.parametrize(
    "shape", [(31, 32, 3), (32, 32, 1), (32, 32, 4), (3, 32, 32)], ids=lambda shape: "x".join(map(str, shape))
)
def test_image_of_another_shape_is_refused_by_its_row(served: PyFuncModel, shape: tuple[int, ...]) -> None:
    error = refusal(served, IMAGES[0].tolist(), np.zeros(shape, int).tolist())
    assert error.error_code == "INVALID_PARAMETER_VALUE"
    assert "row 1: pixels: 32 x 32 x 3 integers are allowed; received" in str(error)
    assert str(shape) in str(error)


@pytest.mark.parametrize(
    "damage",
    [lambda image: image[0].pop(), lambda image: image[5][7].pop()],
    ids=["short row", "pixel of two numbers"],
)
def test_ragged_rows_are_refused_by_their_row(served: PyFuncModel, damage: Any) -> None:
    image = IMAGES[0].tolist()
    damage(image)
    error = refusal(served, IMAGES[1].tolist(), image)
    assert error.error_code == "INVALID_PARAMETER_VALUE"
    assert "row 1: pixels" in str(error)
    assert "rows of different lengths" in str(error)


@pytest.mark.parametrize(("value", "received"), [(256, "0 to 256"), (-1, "-1 to 0"), (2**40, "0 to 1099")])
def test_values_beyond_a_byte_are_refused_by_their_row(
    served: PyFuncModel, value: int, received: str
) -> None:
    image = np.zeros((32, 32, 3), np.int64)
    image[31, 31, 2] = value
    error = refusal(served, IMAGES[0].tolist(), image.tolist())
    assert error.error_code == "INVALID_PARAMETER_VALUE"
    assert f"row 1: pixels: 0 to 255 are allowed; received {received}" in str(error)


@pytest.mark.parametrize(
    "pixels",
    [
        (IMAGES[0] / 255).tolist(),
        np.full((32, 32, 3), "0").tolist(),
        (IMAGES[0] > 127).tolist(),
        "image.png",
        7,
        None,
        [],
        [[[]]],
    ],
    ids=["floats", "strings", "booleans", "text", "number", "nothing", "no rows", "no pixels"],
)
def test_anything_but_integers_is_refused(served: PyFuncModel, pixels: Any) -> None:
    with pytest.raises(MlflowException) as caught:
        served.predict(pd.DataFrame({"pixels": [pixels]}))
    assert caught.value.error_code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def test_another_column_is_refused(served: PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="pixels"):
        served.predict(pd.DataFrame({"image": [IMAGES[0].tolist()]}))


def test_no_rows_have_no_answers(served: PyFuncModel) -> None:
    assert served.predict(pd.DataFrame({"pixels": []}, dtype=object)) == []
