"""`python -m pipeline classify`: files and test images, in the terminal, as a figure and for programs."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.dummy import DummyClassifier

from pipeline.commands import classify as classify_command
from pipeline.commands import loaded_model
from pipeline.commands.loaded_model import LoadedModel
from pipeline.commands.printed_answers import Printer
from pipeline.core.arrays import read_arrays
from pipeline.support.errors import PipelineError
from tests.called import Called, call
from tests.conftest import Clone, Evaluated

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


Classify = Callable[..., Called]


@pytest.fixture
def classify(clone: Clone) -> Classify:
    """The command, called in the clone. It must end well unless `fails`."""

    def called(*words: str, model: str = CHAMPION, folder: str = ".", fails: bool = False) -> Called:
        chosen = ["--model", model] if model else []
        done = call(clone.folder / folder, "classify", *chosen, *words, MLFLOW_TRACKING_URI=clone.store)
        assert fails == (done.error is not None), done.error
        return done

    return called


def test_a_test_image_is_shown_beside_what_it_is(classify: Classify, evaluated: Evaluated) -> None:
    title, *shown = classify("--index", "16").out.splitlines()
    label, row = evaluated.labels[16], evaluated.probabilities[16]
    assert title == f"test image 16 is {label}, cross-entropy {-np.log(row[label]):.3f} nats"
    assert [line.split()[0] for line in shown] == [str(number) for number in row.argsort()[::-1][:5]]
    assert shown[0].endswith(f"{row.max():.1%}")
    assert "█" in shown[0]


def test_a_training_image_is_counted_as_in_its_source(
    classify: Classify, clone: Clone, tmp_path: Path
) -> None:
    raw = read_arrays(clone.folder / "quickstart/data/raw")
    split = read_arrays(clone.folder / "quickstart/data/prepared/split")
    for number in (3, int(split["validation"][0])):
        [answer] = json.loads(classify("--part", "train", "--index", str(number), "--json").out)
        assert (answer["image"], answer["actual"]) == (
            f"train image {number}",
            str(raw["train_labels"][number]),
        )
        pixels = raw["train_images"][number]
        Image.fromarray(pixels).save(tmp_path / "train.png")
        [again] = json.loads(classify(str(tmp_path / "train.png"), "--json").out)
        assert again["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_the_default_is_the_champion_of_params_yaml(classify: Classify, evaluated: Evaluated) -> None:
    """And its answers are those that were evaluated."""
    printed = classify("--index=0", "--index=16", "--index=359", "--json", model="", folder="quickstart")
    answers = json.loads(printed.out)
    assert [answer["image"] for answer in answers] == [f"test image {number}" for number in (0, 16, 359)]
    for answer, number in zip(answers, (0, 16, 359), strict=True):
        row = evaluated.probabilities[number]
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert answer["label"] == str(row.argmax())
        assert answer["cross_entropy"] == pytest.approx(-np.log(row[int(answer["actual"])]), abs=1e-4)


def test_files_folders_and_patterns_are_answered_as_their_pixels(
    classify: Classify, photos: Path, evaluated: Evaluated
) -> None:
    one, below = str(photos / "0.png"), str(photos / "**/*.webp")
    table = pd.read_csv(io.StringIO(classify(str(photos), one, below, "--csv").out))
    names = [Path(name).name for name in table["image"]]
    assert names == ["0.png", "1.PNG", "2.webp", "3.png", "0.png", "2.webp"]
    expected = evaluated.probabilities[[0, 1, 2, 3, 0, 2]]
    assert table[[str(digit) for digit in range(10)]].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert list(table["label"]) == list(expected.argmax(axis=1))
    assert list(table.columns[:3]) == ["image", "label", "confidence"]


def test_a_file_name_in_csv_is_no_formula(classify: Classify, photos: Path, tmp_path: Path) -> None:
    for name in ("=cmd|' C'!A0.png", "+cmd|.png", "+1.png"):
        shutil.copy(photos / "0.png", tmp_path / name)
    printed = classify(
        *(path.name for path in sorted(tmp_path.glob("*.png"))), "--csv", folder=str(tmp_path)
    ).out
    assert [line.split(",")[0] for line in printed.splitlines()[1:]] == [
        "+1.png",
        "'+cmd|.png",
        "'=cmd|' C'!A0.png",
    ]


def test_with_top_only_the_most_probable_classes_are_printed(
    classify: Classify, evaluated: Evaluated
) -> None:
    most = [str(number) for number in (-evaluated.probabilities[16]).argsort()[:2]]
    [answer] = json.loads(classify("--index", "16", "--top", "2", "--json").out)
    assert list(answer["probabilities"]) == most
    table = pd.read_csv(io.StringIO(classify("--index", "16", "--top", "2", "--csv").out))
    assert set(table.columns[table.notna().all()][-2:]) == set(most)  # the other classes' cells are empty


def test_a_folder_of_class_folders_is_scored_and_its_mistakes_are_listed(
    classify: Classify, evaluated: Evaluated, tmp_path: Path
) -> None:
    """Where images lie below other folders, none is labelled."""
    for number in range(6):
        label = (
            evaluated.labels[number] if number else (evaluated.labels[0] + 1) % 10
        )  # the first one is wrong
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(evaluated.images[number]).save(tmp_path / str(label) / f"{number}.png")
    found = evaluated.probabilities[:6].argmax(axis=1)
    right = sum(found[1:] == evaluated.labels[1:6])
    done = classify(str(tmp_path), "--csv", "--mistakes")
    mistakes = pd.read_csv(io.StringIO(done.out))
    assert len(mistakes) == 6 - right
    assert "0.png" in {Path(name).name for name in mistakes["image"]}
    assert (mistakes["label"] != mistakes["actual"]).all()
    assert f"classify: {right} of 6 right: accuracy {right / 6:.4f} (95 % interval " in done.err
    assert classify(str(tmp_path)).out.endswith(done.err.partition("classify: ")[2])
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / f"{evaluated.labels[1]}/1.png", tmp_path / "other")
    assert "classify: " not in classify(str(tmp_path)).out
    refused = classify(str(tmp_path), "--mistakes", fails=True).refusal
    assert refused == f"--mistakes: no image is in the folder of a class: {', '.join('0123456789')}"


def test_names_are_shown_as_they_are(classify: Classify, photos: Path, tmp_path: Path) -> None:
    """Neither markup, nor what moves the cursor, nor bytes that are no UTF-8 change them."""
    content = (photos / "0.png").read_bytes()
    names = {b"[red]y.png": "[red]y.png", b"a\n\x1b[2Jb.png": r"a\n\x1b[2Jb.png", b"\xff.png": r"\udcff.png"}
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(content)
    shown = [line for line in classify(str(tmp_path)).out.splitlines() if line.startswith("/")]
    assert sorted(shown) == sorted(f"{tmp_path}/{name}" for name in names.values())


def test_good_files_are_answered_although_others_are_bad(
    classify: Classify, photos: Path, tmp_path: Path
) -> None:
    """A pipe, which nobody writes to, is not waited for."""
    os.mkfifo(pipe := tmp_path / "pipe.png")
    files = [str(path) for path in (photos / "0.png", photos / "notes.txt", pipe, "none.png", "empty*")]
    done = classify(*files, "--json", fails=True)
    assert len(json.loads(done.out)) == 1
    text, *others = done.refusal.split("; ")
    assert text.startswith(f"{photos}/notes.txt: must be a PNG, JPEG, WebP or HEIC image")
    assert others[-3:] == [f"{pipe}: not a file", "none.png: no image found", "empty*: no image found"]


@pytest.mark.parametrize(
    "form", [[], pytest.param(["--json"], marks=pytest.mark.faults)], ids=["bars", "json"]
)
def test_a_pipe_that_is_closed_is_no_error(form: list[str], clone: Clone) -> None:
    """As of `| head`."""
    words = ["-m", "pipeline", "classify", "--model", CHAMPION, "--index", "0", *form]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=clone.folder,
        env=clone.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_figure_is_written(classify: Classify, photos: Path, tmp_path: Path) -> None:
    """Image, predicted and actual distribution; of a user's file the first two."""
    for name in ("out.png", "out.svg"):
        classify(str(photos / "0.png"), "--index", "16", "--plot", str(tmp_path / name))
    assert np.asarray(Image.open(tmp_path / "out.png")).std() > 10
    text = (tmp_path / "out.svg").read_text()
    for part in ("actual", "predicted", "nats", "test image 16", "0.png"):
        assert part in text


def test_any_models_uri_does(classify: Classify, clone: Clone, evaluated: Evaluated) -> None:
    client = MlflowClient(clone.store)
    version = client.get_model_version_by_alias("digits", "champion")
    outputs: Any = client.get_run(str(version.run_id)).outputs
    logged = [f"models:/{output.model_id}" for output in outputs.model_outputs]
    name = f"{version.tags['variant']}-{version.tags['seed']}"
    assert len(logged) == 2  # by the training, and by the promotion
    trained = read_arrays(clone.folder / "quickstart/predictions" / name)["test"]  # without a temperature
    served = f"models:/digits/{version.version}"
    for uri in (served, f"runs:/{version.run_id}/{name}", *logged):
        expected = evaluated.probabilities if uri in {served, version.source} else trained
        [answer] = json.loads(classify("--index", "3", "--json", model=uri).out)
        assert [*answer["probabilities"].values()] == pytest.approx(expected[3].tolist(), abs=1e-5), uri


def test_a_trained_model_names_its_classes_itself(clone: Clone, photos: Path, tmp_path: Path) -> None:
    """In a folder without its data."""
    [run, *_] = MlflowClient(clone.store).search_runs(["1"], "attributes.run_name = 'shallow-0'")
    model, photo = f"runs:/{run.info.run_id}/shallow-0", str(photos / "0.png")
    done = call(tmp_path, "classify", "--model", model, photo, "--json", MLFLOW_TRACKING_URI=clone.store)
    assert done.error is None
    assert list(json.loads(done.out)[0]["probabilities"]) == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("form", ["--json", "--csv", "--top=3"])
def test_batches_print_what_one_batch_prints(
    classify: Classify, photos: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (str(photos), str(photos / "none.png"), "--index=3", form)
    whole, sizes = classify(*words, fails=True), list[int]()
    answer = LoadedModel.probabilities

    def counted(model: LoadedModel, images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return answer(model, images)

    monkeypatch.setattr(LoadedModel, "probabilities", counted)
    monkeypatch.setattr(classify_command, "BATCH", 2)
    done = classify(*words, fails=True)
    assert sizes == [2, 2, 1]
    assert (done.out, done.error) == (whole.out, whole.error)
    if form == "--json":
        assert done.out == json.dumps(json.loads(done.out), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("json", '"label": null'),
        ("csv", "\nx.png,,0.55,"),
        (None, "x.png has no label: the model"),
    ],
)
def test_an_unsure_answer_has_no_label_in_any_form(
    form: str | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served: Any = SimpleNamespace(model_config={"refuse_below": 0.6})
    model = LoadedModel("model", served, ["a", "b"], 32, "crop", {})
    queries = [classify_command.Query(name, np.zeros((32, 32, 3), np.uint8)) for name in ("x.png", "y.png")]
    rows = np.array([[0.55, 0.45], [0.4, 0.6]])
    Printer(form, model.classes, False).print([*classify_command.answered(queries, rows, model, None)])
    printed = capsys.readouterr().out
    assert shown in printed
    assert "no label" not in printed.partition("y.png")[2]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        (
            lambda images: np.zeros((len(images), 3)),
            "must give probabilities of shape (1, 2); received (1, 3)",
        ),
        (
            DummyClassifier().predict,
            "cannot classify images: This DummyClassifier instance is not",
        ),
    ],
)
def test_a_model_of_another_kind_is_an_error_in_one_line(answers: Any, problem: str) -> None:
    model: Any = SimpleNamespace(model_config={}, predict=answers)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(PipelineError, match=rf"^model: {re.escape(problem)}"):
        LoadedModel("model", model, ["a", "b"], 32, "crop", {}).probabilities(images)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--index 360", "--index: must be from 0 to 359; received 360"),
        ("--index 0 --plot out.jpeg2", "--plot out.jpeg2: Format 'jpeg2' is not supported"),
        ("--model nonsense --index 0", "nonsense: cannot be loaded"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_one_line(classify: Classify, words: str, reason: str) -> None:
    assert reason in classify(*words.split(), fails=True).refusal


@pytest.mark.parametrize(("module", "words"), [("classify", ["--index", "0"]), ("serve", [])])
def test_a_missing_model_is_an_error_in_one_line_and_a_missing_store_stays_missing(
    clone: Clone, module: str, words: list[str], tmp_path: Path
) -> None:
    refused = call(tmp_path, module, "--model", CHAMPION, *words).refusal
    assert refused.startswith(f"{CHAMPION}: there is no MLflow store yet in this folder")
    mistyped = call(tmp_path, module, "--model", "nonsense", *words).refusal
    assert mistyped.startswith("nonsense: cannot be loaded: ")
    assert not list(tmp_path.iterdir())
    model = ["--model", "models:/nothing@champion"]
    refused = call(clone.folder, module, *model, *words, MLFLOW_TRACKING_URI=clone.store).refusal
    assert refused.startswith("models:/nothing@champion: cannot be loaded: ")
    assert refused.endswith(f"; champions here: {CHAMPION}")


def test_without_test_images_here_an_index_is_an_error(
    classify: Classify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_model, "DATA", (tmp_path,))
    assert "are not in this folder" in classify("--index", "0", fails=True).error
