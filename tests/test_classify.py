"""`python -m pipeline.classify`: files and test images, in the terminal, as a figure and for programs."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.conftest import Clone, Evaluated

pytestmark = pytest.mark.timeout(900)  # the first test may wait for the quickstart

CHAMPION = "models:/digits@champion"


@pytest.fixture(scope="module")
def photos(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test images 0 to 3 as files, in a folder and one below it, among a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, name in enumerate(("0.png", "1.PNG", "more/2.webp", "more/3.png")):
        Image.fromarray(evaluated.images[number]).save(folder / name, lossless=True)
    (folder / "notes.txt").write_text("not an image")
    return folder


def predict(
    clone: Clone, *arguments: str, model: str = CHAMPION, **options: Any
) -> subprocess.CompletedProcess[str]:
    return clone.run("python", "-m", "pipeline.classify", "--model", model, *arguments, **options)


def test_a_test_image_is_shown_beside_what_it_is(clone: Clone, evaluated: Evaluated) -> None:
    shown = predict(clone, "--index", "16").stdout.splitlines()
    label, row = evaluated.labels[16], evaluated.probabilities[16]
    nats = -np.log(row[label])
    assert shown[0] == f"test image 16 is {label}, cross-entropy {nats:.3f} nats"
    assert len(shown) == 6
    most = row.argsort()[::-1][:5]
    assert [line.split()[0] for line in shown[1:]] == [str(number) for number in most]
    assert shown[1].endswith(f"{row.max():.1%}")
    assert "█" in shown[1]


def test_the_champion_of_params_yaml_is_asked_unless_told(clone: Clone, evaluated: Evaluated) -> None:
    """And its answers are those that were evaluated."""
    more = {"MLFLOW_TRACKING_URI": clone.store}
    command = ["python", "-m", "pipeline.classify", "--index", "0", "16", "359", "--json"]
    answers = json.loads(clone.run(*command, folder="quickstart", more=more).stdout)
    assert [answer["image"] for answer in answers] == [f"test image {number}" for number in (0, 16, 359)]
    for answer, number in zip(answers, (0, 16, 359), strict=True):
        row = evaluated.probabilities[number]
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert answer["label"] == str(row.argmax())
        assert answer["cross_entropy"] == pytest.approx(-np.log(row[int(answer["actual"])]), abs=1e-4)


def test_files_folders_and_patterns_are_answered_as_their_pixels(
    clone: Clone, photos: Path, evaluated: Evaluated
) -> None:
    one, below = str(photos / "0.png"), str(photos / "**/*.webp")
    done = predict(clone, str(photos), one, below, "--csv")
    table = pd.read_csv(io.StringIO(done.stdout))
    names = [Path(name).name for name in table["image"]]
    assert names == ["0.png", "1.PNG", "2.webp", "3.png", "0.png", "2.webp"]
    expected = evaluated.probabilities[[0, 1, 2, 3, 0, 2]]
    assert table[[str(digit) for digit in range(10)]].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert list(table["label"]) == list(expected.argmax(axis=1))
    assert list(table.columns[:3]) == ["image", "label", "confidence"]


def test_good_files_are_answered_although_others_are_bad(clone: Clone, photos: Path) -> None:
    done = predict(
        clone, str(photos / "0.png"), str(photos / "notes.txt"), "none.png", "empty*", "--json", check=False
    )
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) == 1
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"error: {photos}/notes.txt: a PNG, JPEG or WebP image is allowed")
    assert told.endswith("none.png: no such image; empty*: no such image")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_figure_is_written(clone: Clone, photos: Path, tmp_path: Path, ending: str) -> None:
    """Image, predicted and actual distribution; of a user's file the first two."""
    predict(clone, str(photos / "0.png"), "--index", "16", "--plot", str(tmp_path / f"out.{ending}"))
    if ending == "png":
        assert np.asarray(Image.open(tmp_path / "out.png")).std() > 10
    else:
        text = (tmp_path / "out.svg").read_text()
        for part in ("actual", "predicted", "nats", "test image 16", "0.png"):
            assert f"<!-- {part}" in text or part in text, part


def test_any_models_uri_does(clone: Clone, evaluated: Evaluated) -> None:
    client = MlflowClient(clone.store)
    version = client.get_model_version_by_alias("digits", "champion")
    outputs: Any = client.get_run(str(version.run_id)).outputs
    logged = [f"models:/{output.model_id}" for output in outputs.model_outputs]
    assert len(logged) == 2  # by the training, and by the promotion
    expected = evaluated.probabilities[3].tolist()
    for uri in (f"models:/digits/{version.version}", f"runs:/{version.run_id}/model", *logged):
        [answer] = json.loads(predict(clone, "--index", "3", "--json", model=uri).stdout)
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-5), uri


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--index", "360"], "--index: 0 to 359 are allowed; received 360"),
        (["--index", "-1", "0"], "--index: 0 to 359 are allowed; received -1"),
        (["none.png"], "none.png: no such image"),
        (["--index", "0", "--plot", "out.jpeg2"], "--plot out.jpeg2: Format 'jpeg2' is not supported"),
        (["--index", "0", "--plot", "none/out.png"], "--plot none/out.png: No such file or directory"),
        (["--model", "models:/nothing@champion", "--index", "0"], f"champions here: {CHAMPION}"),
        (["--model", "nonsense", "--index", "0"], "nonsense: cannot be loaded"),
        (["--index", "0", "--top", "0"], "--top: 1 or more is allowed; received 0"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_one_line(
    clone: Clone, arguments: list[str], told: str
) -> None:
    done = predict(clone, *arguments, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert told in line


def test_without_test_images_here_an_index_is_an_error(clone: Clone, tmp_path: Path) -> None:
    shutil.copytree(clone.folder / "pipeline", tmp_path / "pipeline")
    more = {"MLFLOW_TRACKING_URI": clone.store}
    elsewhere = Clone(tmp_path)
    done = predict(elsewhere, "--index", "0", more=more, check=False)
    assert done.returncode == 1
    assert "are not in this folder" in done.stderr.splitlines()[-1]


def test_nothing_to_ask_about_is_told_with_the_usage(clone: Clone) -> None:
    done = predict(clone, check=False)
    assert done.returncode == 2
    assert "name images, or test images by --index" in done.stderr
