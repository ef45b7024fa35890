"""Folders of arrays: the same content gives the same bytes, and a failed write changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core import arrays
from pipeline.core.arrays import MANIFEST, Rows, read_arrays, read_facts, write_arrays
from tests.conftest import contents, refusal

ARRAYS: dict[str, np.ndarray] = {
    "images": np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3),
    "labels": np.array([3, 1], np.int64),
    "probabilities": np.array([[0.25, 0.75]], np.float32),
    "reversed and transposed": np.arange(6).reshape(2, 3).T[:, ::-1],
}
FACTS = {"name": "cifar10", "classes": ["cat", "größer"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "raw"
    write_arrays(folder, ARRAYS, **FACTS)
    return folder


def test_arrays_and_facts_are_read_as_they_were_written(folder: Path) -> None:
    read = read_arrays(folder)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert read_facts(folder) == FACTS


@pytest.mark.parametrize("block", [1, 5_000, arrays.BLOCK])
def test_rows_are_written_block_by_block_as_the_whole_array_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(arrays, "BLOCK", block)
    images, rows = np.random.default_rng(0).integers(0, 256, (9, 32, 16, 3), np.uint8), np.array([7, 0, 3, 7])
    some = Rows(images, rows)
    assert max(part.nbytes for part in some.blocks()) <= max(block, images[0].nbytes)
    none = rows[:0]
    write_arrays(tmp_path / "whole", {"images": images[rows], "none": images[none]})
    write_arrays(tmp_path / "blocks", {"images": some, "none": Rows(images, none)})
    assert contents(tmp_path / "blocks") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"arrays": {', b"\xff\xfe", b'{"arrbys": {}, "facts": {}}'],
    ids=["missing", "empty", "cut off", "not text", "no arrays"],
)
def test_an_unreadable_manifest_is_named(folder: Path, content: bytes | None) -> None:
    path = folder / MANIFEST
    path.unlink() if content is None else path.write_bytes(content)
    line = refusal(read_arrays, folder)
    assert line.startswith(f"{path}: cannot be read: ")
    assert line.endswith("; run `dvc repro` to make it again")


def test_an_array_that_needs_unpickling_is_refused(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([None]), allow_pickle=True)
    line = refusal(read_arrays, folder)
    assert line.startswith(f"{folder / 'labels.npy'}: cannot be read: ")
    assert "Python objects" in line


def test_a_failed_write_changes_nothing_and_the_next_replaces_what_it_left(folder: Path) -> None:
    (folder / "left over.txt").write_text("old")
    before = contents(folder)
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(folder, {"images": np.array([None])})
    assert contents(folder) == before
    assert folder.with_name("raw.partial").is_dir()
    write_arrays(folder, {"labels": ARRAYS["labels"]})
    assert contents(folder.parent).keys() == {"raw/labels.npy", f"raw/{MANIFEST}"}
    assert read_facts(folder) == {}
