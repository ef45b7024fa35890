"""Folders of arrays: the same content gives the same bytes, and damage is found."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.arrays import (
    MANIFEST,
    arrays_digest,
    digest_of,
    file_digest,
    read_arrays,
    read_facts,
    write_arrays,
    write_json,
)
from pipeline.errors import PipelineError

ARRAYS: dict[str, np.ndarray] = {
    "images": np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3),
    "labels": np.array([3, 1], np.int64),
    "probabilities": np.array([[0.25, 0.75]], np.float32),
}
FACTS = {"name": "cifar10", "classes": ["cat", "größer"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "raw"
    write_arrays(folder, ARRAYS, **FACTS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_arrays_and_facts_come_back_as_they_were_written(folder: Path) -> None:
    read = read_arrays(folder)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert read_facts(folder) == FACTS


def test_array_of_any_memory_order_comes_back(tmp_path: Path) -> None:
    turned = ARRAYS["images"].transpose(0, 3, 1, 2)[:, ::-1]
    write_arrays(tmp_path / "raw", {"images": turned})
    np.testing.assert_array_equal(read_arrays(tmp_path / "raw")["images"], turned)


def test_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "again", dict(reversed(ARRAYS.items())), **dict(reversed(FACTS.items())))
    assert contents(tmp_path / "again") == contents(folder)


def test_manifest_ends_with_a_newline_and_keeps_letters_readable(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    assert text.endswith("}\n")
    assert "größer" in text


def test_arrays_are_memory_mapped_and_read_only(folder: Path) -> None:
    images = read_arrays(folder)["images"]
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("position", [0, -1], ids=["first byte", "last byte"])
def test_one_flipped_byte_is_found_and_its_file_named(folder: Path, name: str, position: int) -> None:
    path = folder / f"{name}.npy"
    before = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(PipelineError, match=rf"{path}: damaged.*dvc repro") as caught:
        read_arrays(folder)
    assert "\n" not in str(caught.value)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_any_changed_byte_of_a_manifest_is_found(folder: Path) -> None:
    path = folder / MANIFEST
    whole = path.read_bytes()
    for position in range(len(whole)):
        for changed in {whole[position] ^ 1, whole[position] ^ 32, 13} - {whole[position]}:
            path.write_bytes(whole[:position] + bytes([changed]) + whole[position + 1 :])
            with pytest.raises(PipelineError, match=rf"^{path}: (damaged|cannot be read): ") as caught:
                read_facts(folder)
            assert "\n" not in str(caught.value)


def test_missing_array_is_named(folder: Path) -> None:
    (folder / "labels.npy").unlink()
    with pytest.raises(PipelineError, match=rf"{folder / 'labels.npy'}: missing"):
        read_arrays(folder)


@pytest.mark.parametrize("reader", [read_arrays, read_facts, arrays_digest])
def test_missing_manifest_is_named(folder: Path, reader: object) -> None:
    (folder / MANIFEST).unlink()
    assert callable(reader)
    with pytest.raises(PipelineError, match=rf"{folder / MANIFEST}: cannot be read"):
        reader(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"arrays": {', b"\xff\xfe", b'{"arrbys": {}, "facts": {}}'],
    ids=["empty", "cut off", "not text", "no arrays"],
)
def test_unreadable_manifest_is_named(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{folder / MANIFEST}: cannot be read"):
        read_arrays(folder)


def test_write_replaces_the_whole_old_folder(folder: Path) -> None:
    (folder / "left over.txt").write_text("old")
    write_arrays(folder, {"labels": ARRAYS["labels"]})
    assert sorted(contents(folder)) == ["labels.npy", MANIFEST]
    assert read_facts(folder) == {}
    assert [path.name for path in folder.parent.iterdir()] == ["raw"]


def test_what_an_interrupted_write_left_is_cleared_away(folder: Path) -> None:
    partial = folder.with_name("raw.partial")
    partial.mkdir()
    (partial / "half.npy").write_bytes(b"half")
    write_arrays(folder, ARRAYS, **FACTS)
    assert "half.npy" not in contents(folder)
    assert not partial.exists()


def test_failed_write_leaves_the_old_folder_as_it_was(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(folder, {"images": np.array([None])})
    assert contents(folder) == before


def test_arrays_digest_follows_the_arrays_and_not_the_facts(folder: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "renamed", ARRAYS, name="another")
    write_arrays(tmp_path / "relabelled", ARRAYS | {"labels": np.array([1, 3], np.int64)}, **FACTS)
    assert arrays_digest(tmp_path / "renamed") == arrays_digest(folder)
    assert arrays_digest(tmp_path / "relabelled") != arrays_digest(folder)


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_file_digest_is_the_published_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_written_in_one_canonical_form(tmp_path: Path) -> None:
    write_json(tmp_path / "new folder" / "a.json", {"b": [1], "a": "é"})
    assert (tmp_path / "new folder" / "a.json").read_text() == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'
