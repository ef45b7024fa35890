"""Fetching and preparing data: bad images and labels are refused, and validation images are set aside."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import arrays_digest, read_arrays, read_facts
from pipeline.params import Split
from pipeline.stages.prepare.stage import check, check_parts, split
from pipeline.support.digests import digest_of
from tests.called import call
from tests.conftest import refusal
from tests.projects import prepared, small_params

# Checking


RANDOM = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0], np.int64)
NAMES = np.array([f"b/{number}.jpg" for number in range(99)])


def blank(*rows: int) -> np.ndarray:
    """Six random images, some of them with a single colour."""
    images = RANDOM.copy()
    images[list(rows)] = 7
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (RANDOM / np.float32(255), LABELS, "images are float32 (6, 32, 32, 3), not uint8 (n, size, size, 3)"),
        (blank(1, 4), LABELS, "images of a single colour: b/1.jpg; b/4.jpg"),
        (RANDOM, LABELS.astype(np.int32), "labels are int32 (6,) for 6 images"),
        (RANDOM, np.array([0, 1, 2, 3, -1, 0]), "labels outside 0 to 2, at [3, 4]"),
        (RANDOM, np.array([0, 0, 0, 1, 1, 2]), "classes with fewer than two images: c"),
        (
            np.tile(blank(0)[:1], (99, 1, 1, 1)),
            np.arange(99) % 3,
            f"images of a single colour: {'; '.join(NAMES[:10])}; and 89 more",
        ),
    ],
    ids=range(6),
)
def test_bad_data_are_refused(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    assert refusal(check, images, labels, list("abc"), "test", NAMES).startswith(
        f"data/raw: test data: {message}"
    )


# Splitting


def chosen(strategy: Any = "stratified", fraction: float = 0.1, seed: int = 0) -> Split:
    return Split(strategy=strategy, fraction=fraction, seed=seed)


@pytest.mark.parametrize(("strategy", "size"), [("stratified", 5_000), ("first", 10_000), ("batch", 10_000)])
def test_parts_are_disjoint_and_of_the_sizes_of_the_documents(strategy: str, size: int) -> None:
    labels, batches = np.random.default_rng(0).permutation(50_000) % 10, np.arange(50_000) // 10_000
    train, validation = split(labels, batches, labels, chosen(strategy))
    assert sorted([*train, *validation]) == list(range(50_000))
    assert len(validation) == size
    expected = {"first": np.arange(10_000), "batch": np.arange(10_000, 20_000)}
    if strategy == "stratified":
        assert np.bincount(labels[validation]).tolist() == [500] * 10
        again, other = (split(labels, batches, labels, chosen(seed=seed))[1] for seed in (0, 1))
        assert np.array_equal(validation, again)
        assert not np.array_equal(validation, other)
    else:
        np.testing.assert_array_equal(validation, expected[strategy])


def test_the_content_of_each_image_may_choose_the_validation_images() -> None:
    ids = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)
    train, validation = split(labels := np.zeros(1000, int), labels, ids, chosen("content", 0.3))
    assert sorted([*train, *validation]) == list(range(1000))
    assert max(ids[validation]) < 0.3 * 2**64 <= min(ids[train])
    few = np.array([0, 0, 1])
    _, drawn = split(few, labels[:3], ids[:3], chosen("content", 0.01))
    assert sorted(few[drawn]) == [0, 1]  # one of each class, however few


def split_and_check(labels: np.ndarray, batches: np.ndarray, strategy: Split) -> None:
    check_parts(labels, *split(labels, batches, labels, strategy), ["cat", "dog", "eel"][: max(labels) + 1])


@pytest.mark.parametrize(
    ("labels", "batches", "strategy", "message"),
    [
        ([0, 1] * 10, [0] * 20, chosen("batch"), "split: leaves no validation image of cat, dog: "),
        ([0, 1, 2] * 5, [0] * 15, chosen(fraction=0.01), "split.fraction 0.01: "),
        ([0, 1, 0, 1], [0] * 4, chosen("first"), "split: leaves no validation image of cat, dog: "),
        ([0] * 60 + [1] * 60 + [2] * 2, [0] * 122, chosen(), "split: leaves no validation image of eel: "),
        ([1, 1] + [0] * 8, [0] * 10, chosen("first"), "split: leaves no training image of dog"),
    ],
)
def test_a_split_that_leaves_something_empty_is_refused(
    labels: list[int], batches: list[int], strategy: Split, message: str
) -> None:
    line = refusal(split_and_check, np.array(labels), np.array(batches), strategy)
    assert line.startswith(f"params.yaml: {message}")


# The two commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a job in which the digits are fetched and prepared."""
    params = small_params(shallow={}) | {"data": {"source": "digits", "name": "numbers"}}
    return prepared(tmp_path_factory.mktemp("digits") / "job", params).folder / "data"


def test_facts_describe_the_dataset_and_the_split(made: Path) -> None:
    indices = read_arrays(made / "prepared/split")
    data_digest = arrays_digest(made / "raw")
    rows = [indices[part].tolist() for part in ("train", "validation")]
    assert read_facts(made / "prepared/split") == {
        "name": "numbers",
        "source": "digits",
        "classes": list("0123456789"),
        "fit": "crop",
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
    ids = read_arrays(made / "prepared/ids")
    for part, rows in indices.items():
        assert ids[part].dtype == np.uint64
        expected = [sha256(raw["train_images"][row].tobytes()).digest()[8:16] for row in rows[:9]]
        assert [int(number).to_bytes(8) for number in ids[part][:9]] == expected
        assert len(ids[part]) == len(set(ids[part].tolist())) == counts[part].total()
    assert (made / "prepared/class_balance.csv").read_text().splitlines() == [
        "class,train,validation,test",
        *(f"{n},{counts['train'][n]},{counts['validation'][n]},{counts['test'][n]}" for n in range(10)),
    ]


def test_fetch_without_an_archive_ends_with_one_line(tmp_path: Path) -> None:
    data = {"source": "cifar10", "archives": ["a.tar.gz", "b.tar.gz"], "sha256": "0" * 64}
    (tmp_path / "params.yaml").write_text(json.dumps(small_params(shallow={}) | {"data": data}))
    refused = call(tmp_path, "fetch").refusal
    reasons = "; ".join(f"{name} (No such file or directory)" for name in data["archives"])
    assert refused.startswith(f"no intact archive: tried {reasons}; ")
    assert not (tmp_path / "data").exists()
