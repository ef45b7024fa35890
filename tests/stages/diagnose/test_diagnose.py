"""Near duplicates, wrong labels and corrupted images: what is planted is found, and nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.core import prediction
from pipeline.core.arrays import write_arrays, write_json
from pipeline.stages.diagnose import diagnosis_figures
from pipeline.stages.diagnose.near_duplicates import fingerprints, near_duplicates, resemblance
from pipeline.stages.diagnose.robustness import CORRUPTIONS, jpeg, robustness, translation
from pipeline.stages.diagnose.stage import label_errors, named, training_accuracies
from pipeline.support.digests import file_digest
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED
from tests.keras_models import network_model

CLASSES = ["cat", "dog", "frog"]


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth random images, uint8 (count, 32, 32, 3), of which no two are alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in coarse]
    )


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    """Parts with planted copies: lighter, recoloured and compressed, moved, and one of a validation image."""
    parts = {name: pictures(40, seed) for seed, name in enumerate(("train", "validation", "test"))}
    train, validation, test = (part.copy() for part in parts.values())
    validation[5] = (train[1] * 0.7 + 40).astype(np.uint8)
    test[2] = jpeg((train[7:8] * np.array([1, 0.9, 0.8])).astype(np.uint8), 75)[0]
    test[9] = translation(train[8:9], 1)[0]
    test[4] = validation[3]
    test[6] = 128  # of one colour
    return {"train": train, "validation": validation, "test": test}


@pytest.mark.usefixtures("workplace")
def test_changed_copies_are_found_and_nothing_else(images: dict[str, np.ndarray]) -> None:
    prints = {part: fingerprints(these) for part, these in images.items()}
    names = {part: np.array([f"{part}/{number}.jpg" for number in range(40)]) for part in images}
    write_arrays(PREPARED / "names", names)
    table = named(near_duplicates(images, prints))
    rows = table.to_dict("records")
    found = {(row["part"], row["index"]): (row["of_part"], row["of_index"]) for row in rows}
    for row in rows:
        assert (row["image"], row["of_image"]) == tuple(
            f"{row[part]}/{row[index]}.jpg" for part, index in (("part", "index"), ("of_part", "of_index"))
        )
    copies = {("validation", 5): ("train", 1), ("test", 2): ("train", 7), ("test", 4): ("validation", 3)}
    assert found == copies
    assert table["similarity"].is_monotonic_decreasing
    assert table["similarity"].iloc[0] == pytest.approx(1)
    assert table.loc[table["index"] == 4, "difference"].tolist() == [0]  # the same image
    images["train"][20:23] = images["train"][19]
    counts = resemblance(table, prints | {"train": fingerprints(images["train"])}).set_index("part")
    assert counts["similar"].to_dict() == {"validation": 1, "test": 2, "train": 4}
    assert counts["images"].tolist() == [40, 40, 40]
    shown = {
        text.get_text()
        for axis in diagnosis_figures.pairs(table, images).axes
        if (text := axis.title).get_text()
    }
    assert {"(train)\ntrain/1.jpg", "1.000 (test)\ntest/4.jpg"} <= shown
    assert diagnosis_figures.pairs(table.iloc[:0], images).axes  # of none


def test_planted_label_errors_are_found_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.05) + np.eye(3)[truth] * 0.85
    labels = truth.copy()
    labels[[10, 20, 30]] = (truth[[10, 20, 30]] + 1) % 3
    table = label_errors(labels, probabilities, CLASSES)
    assert set(table["index"]) == {10, 20, 30}
    assert table["predicted"].tolist() == [CLASSES[label] for label in truth[table["index"]]]
    assert table["label"].tolist() == [CLASSES[label] for label in labels[table["index"]]]
    assert table["probability"].tolist() == pytest.approx([0.05] * 3)
    table["image"] = [f"in a folder with a long name/{index}.jpg" for index in table["index"]]
    titles = [axis.get_title() for axis in diagnosis_figures.suspicious(table, pictures(300, 3)).axes]
    shown = f"...ong name/10.jpg\n{CLASSES[labels[10]]}\nmore like {CLASSES[truth[10]]}"
    assert shown in titles


def test_a_model_that_is_mostly_wrong_suspects_no_label() -> None:
    labels = np.arange(300) % 3
    wrong = np.full((300, 3), 0.05) + np.eye(3)[(labels + 1) % 3] * 0.85  # as after too few steps
    table = label_errors(labels, wrong, CLASSES)
    assert len(table) == 0
    assert diagnosis_figures.suspicious(table, pictures(300, 3)).axes


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_grows_with_its_strength_and_is_the_same_each_time(name: str) -> None:
    images, corruption = pictures(20, 0), CORRUPTIONS[name]
    changed = [corruption.function(images, strength) for strength in corruption.strengths]
    assert {(one.shape, one.dtype) for one in changed} == {(images.shape, images.dtype)}
    distances = [float(np.square(one.astype(float) - images).mean()) for one in changed]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert np.array_equal(corruption.function(images, corruption.strengths[0]), changed[0])


def test_robustness_begins_with_the_accuracy_on_unchanged_images() -> None:
    model, images, labels = network_model("shallow", 3), pictures(30, 0), np.arange(30) % 3
    table = robustness(model, images, labels)
    assert len(table) == len(CORRUPTIONS) * 6
    accuracy = prediction.accuracy(model, images, labels)
    assert set(table.loc[table["level"] == 0, "accuracy"]) == {accuracy}
    noisy = CORRUPTIONS["noise"].function(images, 25)
    worst = table[(table["corruption"] == "noise") & (table["level"] == 5)]
    assert worst["accuracy"].tolist() == [prediction.accuracy(model, noisy, labels)]
    legend = diagnosis_figures.robustness(pd.concat([table.assign(model=one) for one in "ab"])).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


@pytest.mark.usefixtures("workplace")
def test_training_accuracy_is_that_of_the_kept_weights_of_all_models_that_did_not_diverge() -> None:
    labels = np.arange(30) % 3
    write_arrays(PREPARED / "train", {"labels": labels})
    write_arrays(PREPARED / "split", {}, counts={"train": 30}, classes=CLASSES)
    write_json(Path("recipes/_index.json"), [{"variant": "a", "seed": 0}, {"variant": "lost", "seed": 0}])
    metrics = {"parameters": 7, "stopped_epoch": 1, "validation/accuracy": 0.5}
    for files, tags in (
        (ModelFiles("a", 0), {"status": "trained"}),
        (ModelFiles("lost", 0), {"status": "diverged", "reason": "nan"}),
    ):
        files.folder.mkdir(parents=True)
        write_json(files.folder / "training.json", {"tags": tags, "params": {}, "metrics": metrics})
        files.model.write_bytes(b"weights")
    probabilities = np.eye(3)[labels[:20]]
    probabilities[:5] = probabilities[:5, [1, 2, 0]]  # of 20 training images, 5 are wrong
    files = ModelFiles("a", 0)
    write_arrays(files.predictions, {"train": probabilities}, model_digest=file_digest(files.model))
    [row] = training_accuracies().to_dict("records")
    assert row == {"model": "a-0", "accuracy": 0.75, "images": 20}
