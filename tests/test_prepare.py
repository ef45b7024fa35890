"""Fetching and preparing data: bad images and labels are refused, and validation images are set aside."""

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import fetch, prepare
from pipeline.params import Split
from pipeline.prepare import check, check_parts, duplicates, split
from pipeline.shared.arrays import arrays_digest, digest_of, read_arrays, read_facts
from tests.conftest import contents, refusal
from tests.jobs import small_params

# Checking


RANDOM = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0], np.int64)
TEN = list(range(10))  # as many as are named


def blank(*rows: int) -> np.ndarray:
    """Six random images, some of them with a single colour."""
    images = RANDOM.copy()
    images[list(rows)] = 7
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (blank(1, 4), LABELS, "images of a single colour, at [1, 4]"),
        (RANDOM, np.array([0, 0, 0, 1, 1, 2]), "classes with fewer than two images: c"),
        (RANDOM[:0], LABELS[:0], "classes with fewer than two images: a, b, c"),
        (blank(0), LABELS // 2, "images of a single colour, at [0]; classes with fewer than "),
        (np.tile(blank(0)[:1], (99, 1, 1, 1)), np.arange(99) % 3, f"images of a single colour, at {TEN}"),
    ],
    ids=range(5),
)
def test_bad_data_are_refused(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    assert refusal(check, images, labels, list("abc"), "test").startswith(f"data/raw: test data: {message}")


# Splitting


def chosen(strategy: Any = "stratified", fraction: float = 0.1, seed: int = 0) -> Split:
    return Split(strategy=strategy, fraction=fraction, seed=seed)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two to five classes with at least 20 images each, and the batches of the images."""
    counts = draw(st.lists(st.integers(20, 60), min_size=2, max_size=5))
    labels = np.repeat(np.arange(len(counts)), counts)
    shuffled = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    return shuffled, np.sort(np.arange(len(labels)) % draw(st.integers(2, 5)))


SEEDS = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=30, derandomize=True)


@given(labelled(), st.sampled_from(["stratified", "first", "batch"]), st.floats(0.1, 0.9), SEEDS)
@FEW
def test_parts_are_disjoint_and_together_everything(
    data: tuple[np.ndarray, np.ndarray], strategy: str, fraction: float, seed: int
) -> None:
    labels, batches = data
    train, validation = split(labels, batches, chosen(strategy, fraction, seed))
    assert train.dtype == validation.dtype == np.int64
    assert min(len(train), len(validation)) > 0
    assert sorted([*train, *validation]) == list(range(len(labels)))
    expected = {"first": np.arange(len(labels) // 5), "batch": np.flatnonzero(batches == 1)}
    if strategy == "stratified":
        assert len(validation) == int(np.ceil(fraction * len(labels)))
        taken, whole = np.bincount(labels[validation]), np.bincount(labels)
        assert (abs(taken - whole * len(validation) / len(labels)) < 1).all()
    else:
        np.testing.assert_array_equal(validation, expected[strategy])
        np.testing.assert_array_equal(train, np.delete(np.arange(len(labels)), validation))


@given(labelled(), SEEDS)
@FEW
def test_the_seed_decides_the_stratified_split(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    first, again, other = (split(*data, chosen(seed=each)) for each in (seed, seed, (seed + 1) % 2**31))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("strategy", "size"), [("stratified", 5_000), ("first", 10_000), ("batch", 10_000)])
def test_sizes_for_cifar10_are_those_of_the_documents(strategy: str, size: int) -> None:
    labels, batches = np.arange(50_000) % 10, np.arange(50_000) // 10_000
    train, validation = split(labels, batches, chosen(strategy))
    assert (len(train), len(validation)) == (50_000 - size, size)
    assert np.bincount(labels[validation]).tolist() == [size // 10] * 10


def split_and_check(labels: np.ndarray, batches: np.ndarray, strategy: Split) -> None:
    check_parts(labels, *split(labels, batches, strategy), ["cat", "dog", "eel"][: max(labels) + 1])


@pytest.mark.parametrize(
    ("labels", "batches", "strategy", "message"),
    [
        ([0, 1] * 10, [0] * 20, chosen("batch"), "split.strategy: batch needs at least two batches"),
        ([0, 1, 2] * 5, [0] * 15, chosen(fraction=0.01), "split.fraction 0.01: "),
        ([0, 1, 2] * 5, [0] * 15, chosen(fraction=0.99), "split.fraction 0.99: "),
        ([0, 1, 0, 1], [0] * 4, chosen("first"), "split: leaves no validation image of cat, dog: "),
        ([0] * 60 + [1] * 60 + [2] * 2, [0] * 122, chosen(), "split: leaves no validation image of eel: "),
        ([1, 1] + [0] * 8, [0] * 10, chosen("first"), "split: leaves no training image of dog"),
        ([0, 0, 1, 1, 2], [0] * 2 + [1] * 3, chosen("batch"), "split: leaves no training image of dog, eel"),
    ],
)
def test_a_split_that_leaves_something_empty_is_refused(
    labels: list[int], batches: list[int], strategy: Split, message: str
) -> None:
    line = refusal(split_and_check, np.array(labels), np.array(batches), strategy)
    assert line.startswith(f"params.yaml: {message}")


def test_duplicates_are_counted_by_the_parts_that_they_are_in() -> None:
    train, test = np.random.default_rng(0).integers(0, 256, (2, 9, 4, 4, 3), np.uint8)
    train[[1, 8]] = train[0]  # in training, and in validation
    test[[3, 4]] = train[[8, 5]]
    test[6] = test[7]
    found = duplicates(train, test, validation=np.array([7, 8]))
    assert found == {"training": 2, "training_and_validation": 1, "test": 2}


# The two commands


def write_params(folder: Path, split: dict[str, Any] | None = None, **data: Any) -> None:
    params = small_params(shallow={})
    params["split"] |= split or {}
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"data": data}))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the digits are fetched and prepared."""
    folder = tmp_path_factory.mktemp("digits")
    write_params(folder, source="digits", name="numbers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["command"])
        fetch.main()
        prepare.main()
    return folder


@pytest.fixture
def made(digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of that folder, which is the working directory."""
    monkeypatch.chdir(digits)
    monkeypatch.setattr(sys, "argv", ["command"])
    return Path("data")


def test_commands_write_their_files_and_no_others(made: Path) -> None:
    arrays = {
        "raw": ["train_images", "train_labels", "train_batches", "test_images", "test_labels"],
        "prepared/split": ["train", "validation"],
    } | {f"prepared/{part}": ["images", "labels"] for part in ("train", "validation", "test")}
    files = {f"{folder}/{name}.npy" for folder, names in arrays.items() for name in names}
    files |= {f"{folder}/manifest.json" for folder in arrays}
    assert contents(made).keys() == files | {"prepared/class_balance.csv", "prepared/samples.png"}


def test_facts_describe_the_dataset_and_the_split(made: Path) -> None:
    indices = read_arrays(made / "prepared/split")
    data_digest = arrays_digest(made / "raw")
    rows = [indices[part].tolist() for part in ("train", "validation")]
    assert read_facts(made / "prepared/split") == {
        "name": "numbers",
        "source": "digits",
        "classes": list("0123456789"),
        "image_shape": [32, 32, 3],
        "counts": {"train": 1293, "validation": 144, "test": 360},
        "duplicates": {"training": 0, "training_and_validation": 0, "test": 0},
        "data_digest": data_digest,
        "split_digest": digest_of([data_digest, *rows]),
    }


def test_prepared_images_are_the_raw_ones_of_their_part_and_their_balance_is_told(made: Path) -> None:
    raw, indices = read_arrays(made / "raw"), read_arrays(made / "prepared/split")
    counts = {}
    for part, rows in (*indices.items(), ("test", np.arange(360))):
        source, prepared = "test" if part == "test" else "train", read_arrays(made / "prepared" / part)
        for kind in ("images", "labels"):
            np.testing.assert_array_equal(prepared[kind], raw[f"{source}_{kind}"][rows])
        counts[part] = Counter(prepared["labels"].tolist())
    assert (made / "prepared/class_balance.csv").read_text().splitlines() == [
        "class,train,validation,test",
        *(f"{n},{counts['train'][n]},{counts['validation'][n]},{counts['test'][n]}" for n in range(10)),
    ]


def test_a_second_run_gives_the_same_bytes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(made)
    fetch.main()
    prepare.main()
    assert capsys.readouterr().out.splitlines() == [
        "fetch: numbers: 1,437 training and 360 test images",
        "prepare: 1,293 training, 144 validation images",
    ]
    assert contents(made) == before


def test_test_images_among_the_training_images_are_refused_unless_they_are_wanted(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for name in ("train/cat", "train/eel", "test/cat", "test/eel"):
        (workplace / "mine" / name).mkdir(parents=True)
        for number, pixels in enumerate(random.integers(0, 256, (6, 32, 32, 3), np.uint8)):
            Image.fromarray(pixels).save(workplace / "mine" / name / f"{number}.png")
    for number in range(3):
        shutil.copy(workplace / "mine/train/cat/0.png", workplace / f"mine/test/eel/copy{number}.png")
        shutil.copy(workplace / "mine/train/eel/1.png", workplace / f"mine/train/eel/copy{number}.png")
    folders = {"train": "mine/train", "test": "mine/test"}
    data: dict[str, Any] = {"source": "directory", "folders": folders, "name": "mine", "image_size": 48}
    write_params(workplace, **data)
    fetch.main()
    assert refusal(prepare.main).startswith("error: data/raw: 3 test images are also training images: ")
    assert not (workplace / "data/prepared").exists()
    write_params(workplace, {"duplicates": "warn", "fraction": 0.5}, **data)
    capsys.readouterr()
    prepare.main()
    facts = read_facts(workplace / "data/prepared/split")
    found = facts["duplicates"]
    assert (found["training"], found["test"], facts["image_shape"]) == (3, 3, [48, 48, 3])
    both = found["training_and_validation"]
    assert 0 < both < 4
    assert capsys.readouterr().out.splitlines()[:2] == [
        "prepare: warning: 3 test images are also training images",
        f"prepare: warning: {both} validation images are also training images",
    ]


def test_fetch_without_an_archive_ends_with_one_line(workplace: Path) -> None:
    write_params(workplace, source="cifar10", archives=["a.tar.gz", "b.tar.gz"], sha256="0" * 64)
    expected = "error: no intact archive: tried a.tar.gz (no such file); b.tar.gz (no such file); "
    assert refusal(fetch.main).startswith(expected)
    assert not (workplace / "data").exists()
