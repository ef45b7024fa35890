"""The user's own images, in a folder for each class: what is read, and what is refused."""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.stages.fetch import folders
from pipeline.stages.fetch.sources import RawDataset
from tests.conftest import refusal


def save(path: Path, colour: tuple[int, int, int] = (9, 9, 9)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), colour).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four PNGs each in train1, train2 and test, and other files and a hidden folder, which
    are ignored. The red value of an image is its number."""
    root = tmp_path / "pets"
    for part, folder in enumerate(("train1", "train2", "test")):
        for label, name in enumerate(("cat", "dog")):
            for i in range(4):
                save(root / folder / name / f"{i}.png", (100 * part + 10 * label + i, 0, 99))
    (root / "train1/cat/notes.txt").write_text("no image")
    (root / "train1/.DS_Store").write_text("no image")
    (root / "train1/.hidden").mkdir()
    return root


def directory(root: Path, size: int = 32) -> RawDataset:
    return folders.read({path.name: path for path in root.iterdir()}, size)


@pytest.mark.parametrize("size", [32, 48])
def test_train_folders_are_put_one_after_another_with_their_labels(root: Path, size: int) -> None:
    raw = directory(root, size)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (16, size, size, 3))
    assert raw.train_batches.tolist() == [0] * 8 + [1] * 8
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert len(set(raw.train_labels[:4])) == 2  # the classes of a folder are mixed
    assert raw.classes == ["cat", "dog"]
    numbers = np.concatenate([raw.train_images, raw.test_images])[:, 0, 0, 0].reshape(3, 8)
    for part, found in enumerate(numbers.tolist()):
        assert sorted(found) == [100 * part + number for number in (0, 1, 2, 3, 10, 11, 12, 13)]
    assert [*raw.train_labels, *raw.test_labels] == (numbers.ravel() // 10 % 10).tolist()
    again = asdict(directory(root, size))
    for name, value in asdict(raw).items():
        np.testing.assert_array_equal(value, again[name])


def test_files_that_are_not_read_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "test/cat/more/0.png")
    directory(root)
    assert capsys.readouterr().out.startswith("fetch: 3 files are ignored: ")


def test_all_unreadable_images_are_named(root: Path) -> None:
    whole = (root / "train1/cat/0.png").read_bytes()
    bad = {"train1/cat/0.png": b"", "train2/cat/2.png": whole[:-30], "test/dog/4.jpg": b"%!PS-Adobe-3.0"}
    for path, content in bad.items():
        (root / path).write_bytes(content)
    message = refusal(directory, root)
    assert message.startswith("images that cannot be read: ")
    assert all(f"{root / path} (" in message for path in bad)
    assert str(root / "train1/dog/0.png") not in message


def each(action: Callable[[Path], Any], paths: Iterable[Path]) -> None:
    for path in list(paths):
        action(path)


PROBLEMS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda root: save(root / "train2/bird/0.png"), "in all folders: bird (not in train1, test)"),
    (lambda root: each(Path.unlink, root.glob("train1/*/*.png")), "train1: no image "),
    (lambda root: each(shutil.rmtree, root.glob("*/dog")), "two or more folders, one for each"),
    (lambda root: (root / "test/two\nlines").mkdir(), "names that cannot be printed: "),
    (lambda root: os.mkfifo(root / "test/cat/pipe.png"), "neither files nor folders, "),
    (lambda root: (root / "test/cat/more").symlink_to(root / "test/dog"), "neither files nor folders, "),
]


@pytest.mark.parametrize(("change", "reason"), PROBLEMS)
def test_folders_that_cannot_be_used_are_refused(
    root: Path, change: Callable[[Path], Any], reason: str
) -> None:
    change(root)
    message = refusal(directory, root)
    assert reason in message
    message.encode()  # can be printed
