"""Prepared data: bad images and labels are refused, and validation images are split off exactly."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML

from pipeline import fetch, prepare
from pipeline.data.arrays import arrays_digest, digest_of, read_arrays, read_facts
from pipeline.errors import PipelineError
from pipeline.params import Split
from pipeline.prepare import check, check_parts, class_balance, split

ROOT = Path(__file__).parents[1]

# What is checked


def good() -> dict[str, np.ndarray]:
    """Six images of three classes, with nothing wrong."""
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    return {"images": images, "labels": np.array([0, 1, 2, 2, 1, 0], np.int64)}


def blank(images: np.ndarray, *indices: int) -> np.ndarray:
    images[list(indices)] = 7
    return images


def test_good_data_pass() -> None:
    check(**good(), classes=list("abc"), part="training")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"images": good()["images"].astype(np.float32)},
            "images are float32 (6, 32, 32, 3), not uint8 (n, 32, 32, 3)",
        ),
        ({"images": good()["images"].transpose(0, 3, 1, 2)}, "images are uint8 (6, 3, 32, 32)"),
        ({"images": good()["images"][..., :1]}, "images are uint8 (6, 32, 32, 1)"),
        ({"images": good()["images"][..., 0]}, "images are uint8 (6, 32, 32)"),
        ({"images": blank(good()["images"], 1, 4)}, "images without content, at [1, 4]"),
        ({"labels": good()["labels"].astype(np.int32)}, "labels are int32 (6,) for 6 images"),
        ({"labels": good()["labels"].astype(np.float64)}, "labels are float64 (6,) for 6 images"),
        ({"labels": good()["labels"][:5]}, "labels are int64 (5,) for 6 images"),
        ({"labels": good()["labels"][:, None]}, "labels are int64 (6, 1) for 6 images"),
        ({"labels": np.array([0, 1, 2, 3, -1, 0])}, "labels outside 0 to 2, at [3, 4]"),
        ({"labels": np.array([0, 0, 0, 1, 1, 1])}, "classes with fewer than two images: c"),
        ({"labels": np.array([0, 0, 0, 1, 1, 2])}, "classes with fewer than two images: c"),
        (
            {"images": good()["images"][:0], "labels": good()["labels"][:0]},
            "fewer than two images: a, b, c",
        ),
    ],
)
def test_bad_data_are_refused_in_one_line(changed: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check(**good() | changed, classes=list("abc"), part="test")
    message = str(caught.value)
    assert message.startswith("data/raw: test data: ")
    assert told in message
    assert len(message.splitlines()) == 1


def test_problems_of_images_and_labels_are_told_together() -> None:
    data = good()
    with pytest.raises(PipelineError, match=r"images without content, at \[0\]; labels outside 0 to 1"):
        check(blank(data["images"], 0), data["labels"], ["a", "b"], "training")


def test_many_bad_images_are_told_by_the_first_ten() -> None:
    with pytest.raises(PipelineError, match=r"at \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]$"):
        check(np.zeros((1000, 32, 32, 3), np.uint8), np.arange(1000) % 2, ["a", "b"], "training")


# How it is split


def chosen(strategy: Any = "stratified", fraction: float = 0.1, seed: int = 0) -> Split:
    return Split(strategy=strategy, fraction=fraction, seed=seed)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two to five classes with 20 images each or more, and the batches that they came in."""
    counts = draw(st.lists(st.integers(20, 60), min_size=2, max_size=5))
    labels = np.repeat(np.arange(len(counts)), counts)
    shuffled = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    return shuffled, np.sort(np.arange(len(labels)) % draw(st.integers(2, 5)))


@given(
    labelled(),
    st.sampled_from(["stratified", "first", "batch"]),
    st.floats(0.1, 0.9),
    st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_parts_are_disjoint_and_together_everything(
    data: tuple[np.ndarray, np.ndarray], strategy: str, fraction: float, seed: int
) -> None:
    train, validation = split(*data, chosen(strategy, fraction, seed))
    assert train.dtype == validation.dtype == np.int64
    assert len(train) > 0
    assert len(validation) > 0
    assert sorted([*train, *validation]) == list(range(len(data[0])))


@given(labelled(), st.floats(0.1, 0.9), st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_stratified_takes_the_fraction_of_all_and_of_each_class(
    data: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> None:
    labels, _ = data
    _, validation = split(*data, chosen("stratified", fraction, seed))
    assert len(validation) == int(np.ceil(fraction * len(labels)))
    taken, whole = np.bincount(labels[validation]), np.bincount(labels)
    assert (abs(taken - whole * len(validation) / len(labels)) < 1).all()


@given(labelled(), st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_seed_decides_the_stratified_split(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    first, again, other = (split(*data, chosen(seed=each)) for each in (seed, seed, (seed + 1) % 2**31))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@given(labelled(), st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_first_takes_exactly_the_first_fifth(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    train, validation = split(*data, chosen("first", seed=seed))
    count = len(data[0])
    assert validation.tolist() == list(range(count // 5))
    assert train.tolist() == list(range(count // 5, count))


@given(labelled(), st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_batch_takes_exactly_the_second_batch(data: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    train, validation = split(*data, chosen("batch", seed=seed))
    assert (data[1][validation] == 1).all()
    assert (data[1][train] != 1).all()
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


@pytest.mark.parametrize(("strategy", "size"), [("stratified", 5_000), ("first", 10_000), ("batch", 10_000)])
def test_sizes_for_cifar10_are_those_of_the_documents(strategy: str, size: int) -> None:
    labels, batches = np.arange(50_000) % 10, np.arange(50_000) // 10_000
    train, validation = split(labels, batches, chosen(strategy))
    assert (len(train), len(validation)) == (50_000 - size, size)
    assert np.bincount(labels[validation]).tolist() == [size // 10] * 10


def test_batch_needs_two_batches() -> None:
    with pytest.raises(PipelineError, match=r"one; allowed here: stratified, first$") as caught:
        split(np.arange(20) % 2, np.zeros(20, np.int64), chosen("batch"))
    assert str(caught.value).startswith("params.yaml: split.strategy: batch needs two batches")


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_fraction_that_leaves_a_class_out_is_refused_in_one_line(fraction: float) -> None:
    with pytest.raises(PipelineError, match=rf"^params\.yaml: split\.fraction {fraction}: ") as caught:
        split(np.arange(20) % 5, np.zeros(20, np.int64), chosen(fraction=fraction))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("labels", "batches", "strategy", "told"),
    [
        ([0, 1, 0, 1], [0, 0, 0, 0], "first", "of 4 training images none is left to validate on"),
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 10, "first", "no training image is left of dog"),
        ([0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 1], "batch", "no training image is left of dog, eel"),
    ],
)
def test_split_that_leaves_nothing_is_refused(
    labels: list[int], batches: list[int], strategy: str, told: str
) -> None:
    parts = split(np.array(labels), np.array(batches), chosen(strategy))
    with pytest.raises(PipelineError, match=rf"^params\.yaml: split: {told}$"):
        check_parts(np.array(labels), *parts, ["cat", "dog", "eel"][: max(labels) + 1])


def test_class_balance_counts_each_class_in_each_part() -> None:
    labels = {"train": np.array([0, 0, 2]), "test": np.array([1, 0])}
    balance = class_balance(labels, ["cat", "dog", "eel"])
    assert balance.to_csv(lineterminator="\n") == "class,train,test\ncat,2,1\ndog,0,1\neel,1,0\n"


# The two commands, as DVC runs them


def command(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{module}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits fetched and prepared."""
    folder = tmp_path_factory.mktemp("digits")
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"] = {"source": "digits"}
    params["split"] = {"strategy": "stratified", "fraction": 0.1, "seed": 0}
    params["finetune"]["variants"]["batchnorm_subset"]["training_images"] = 1293  # all that there are
    (folder / "params.yaml").write_text(json.dumps(params))
    fetched, prepared = command("fetch", folder), command("prepare", folder)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert fetched.stdout == "fetch: digits: 1,437 training and 360 test images\n"
    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert prepared.stdout == "prepare: 1,293 training, 144 validation images\n"
    return folder


def test_commands_write_their_files_and_no_others(made: Path) -> None:
    arrays = {
        "raw": ["train_images", "train_labels", "train_batches", "test_images", "test_labels"],
        "prepared/split": ["train", "validation"],
        "prepared/train": ["images", "labels"],
        "prepared/validation": ["images", "labels"],
        "prepared/test": ["images", "labels"],
    }
    files = {f"{folder}/{name}.npy" for folder, names in arrays.items() for name in names}
    files |= {f"{folder}/manifest.json" for folder in arrays}
    files |= {"prepared/class_balance.csv", "prepared/samples.png"}
    assert contents(made / "data").keys() == files
    assert {path.name for path in made.iterdir()} == {"params.yaml", "data", ".pipeline"}


def test_facts_tell_the_dataset_its_classes_and_the_digests(made: Path) -> None:
    indices = read_arrays(made / "data/prepared/split")
    data_digest = arrays_digest(made / "data/raw")
    dataset = {"name": "digits", "classes": list("0123456789")}
    assert read_facts(made / "data/raw") == dataset
    assert read_facts(made / "data/prepared/split") == dataset | {
        "data_digest": data_digest,
        "split_digest": digest_of(
            [data_digest, *(indices[part].tolist() for part in ("train", "validation"))]
        ),
    }


@pytest.mark.parametrize("part", ["train", "validation"])
def test_indices_refer_to_the_raw_images(made: Path, part: str) -> None:
    raw, rows = read_arrays(made / "data/raw"), read_arrays(made / "data/prepared/split")[part]
    prepared = read_arrays(made / "data/prepared" / part)
    np.testing.assert_array_equal(prepared["images"], raw["train_images"][rows])
    np.testing.assert_array_equal(prepared["labels"], raw["train_labels"][rows])


def test_test_images_are_the_raw_ones(made: Path) -> None:
    raw, prepared = read_arrays(made / "data/raw"), read_arrays(made / "data/prepared/test")
    np.testing.assert_array_equal(prepared["images"], raw["test_images"])
    np.testing.assert_array_equal(prepared["labels"], raw["test_labels"])


def test_class_balance_is_that_of_the_prepared_labels(made: Path) -> None:
    header, *rows = (made / "data/prepared/class_balance.csv").read_text().splitlines()
    parts = header.split(",")[1:]
    assert parts == ["train", "validation", "test"]
    labels = {part: read_arrays(made / "data/prepared" / part)["labels"] for part in parts}
    counts = {part: Counter(values.tolist()) for part, values in labels.items()}
    assert rows == [f"{digit},{','.join(str(counts[part][digit]) for part in parts)}" for digit in range(10)]


def test_second_run_gives_the_same_bytes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(made / "data")
    monkeypatch.chdir(made)
    fetch.main()
    prepare.main()
    assert contents(made / "data") == before


def test_flipped_byte_in_raw_data_stops_prepare_with_one_line(made: Path) -> None:
    path = made / "data/raw/train_images.npy"
    whole, prepared = path.read_bytes(), contents(made / "data/prepared")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = command("prepare", made)
    path.write_bytes(whole)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: data/raw/train_images.npy: damaged: ")
    assert done.stderr.count("\n") == 1
    assert contents(made / "data/prepared") == prepared


def test_variants_that_want_more_images_than_there_are_are_refused_before_anything_is_written(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "data/raw", tmp_path / "data/raw")
    params = json.loads((made / "params.yaml").read_text())
    params["variants"]["shallow"]["batch_size"] = 1294
    params["finetune"]["variants"]["batchnorm_subset"]["training_images"] = 10_000
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    done = command("prepare", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    most = "at most the 1293 training images; received"
    assert done.stderr == (
        f"error: params.yaml: variants.shallow.batch_size: {most} 1294; "
        f"finetune.variants.batchnorm_subset.training_images: {most} 10000\n"
    )
    assert not (tmp_path / "data/prepared").exists()


def test_class_with_a_single_image_is_named_before_anything_is_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    for number, (image, name) in enumerate(zip(images, ["cat", "cat", "cat", "eel", "eel"], strict=True)):
        for part in ("train", "test"):
            (tmp_path / "mine" / part / name).mkdir(parents=True, exist_ok=True)
            if part == "test" or number < 4:  # a single eel to train on
                Image.fromarray(image).save(tmp_path / "mine" / part / name / f"{number}.png")
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"] = {"source": "directory", "directory": "mine", "name": "mine"}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    command("fetch", tmp_path).check_returncode()
    done = command("prepare", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: data/raw: training data: classes with fewer than two images: eel\n"
    assert not (tmp_path / "data/prepared").exists()


def test_fetch_without_any_archive_ends_with_one_line(tmp_path: Path) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"] = {"source": "cifar10", "archives": ["a.tar.gz", "b.tar.gz"], "sha256": "0" * 64}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    done = command("fetch", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: no whole CIFAR-10 archive: tried a.tar.gz (no such file); b.tar.gz ("
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
