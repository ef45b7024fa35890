"""The user's own images, in a folder for each class: what is read, and what is refused."""

import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
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
    return folders.read({path.name: path for path in root.iterdir()}, size, 0.2, root.with_name("work"))


@pytest.mark.parametrize("size", [32, 48])
def test_train_folders_are_put_one_after_another_with_their_labels(root: Path, size: int) -> None:
    raw = directory(root, size)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (16, size, size, 3))
    assert raw.train_batches.tolist() == [0] * 8 + [1] * 8
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert len(set(raw.train_labels[:4])) == 2  # the classes of a folder are mixed
    assert raw.classes == ["cat", "dog"]
    numbers = np.concatenate([raw.train_images[:], raw.test_images[:]])[:, 0, 0, 0].reshape(3, 8)
    for part, found in enumerate(numbers.tolist()):
        assert sorted(found) == [100 * part + number for number in (0, 1, 2, 3, 10, 11, 12, 13)]
    assert [*raw.train_labels, *raw.test_labels] == (numbers.ravel() // 10 % 10).tolist()
    parts = [part for part in ("train1", "train2", "test") for _ in range(8)]
    paths = [
        f"{part}/{('cat', 'dog')[number // 10 % 10]}/{number % 10}.png"
        for part, number in zip(parts, numbers.ravel().tolist(), strict=True)
    ]
    assert raw.train_names is not None
    assert raw.test_names is not None
    assert [*raw.train_names.tolist(), *raw.test_names.tolist()] == paths
    again = directory(root, size).arrays()
    for name, value in raw.arrays().items():
        np.testing.assert_array_equal(value[:], again[name][:])


def test_of_one_folder_the_content_of_each_file_decides_where_it_is(tmp_path: Path) -> None:
    """Nothing that was there moves if half as many images are added, and copies stay together."""
    sides: list[dict[tuple[int, ...], tuple[bool, int]]] = []
    for count in (200, 300):
        for number in range(count):
            path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
            save(path, (number % 256, number // 256, 7))
        save(tmp_path / "pets/cat/copy.png", (0, 0, 7))
        raw = folders.read({"all": tmp_path / "pets"}, 8, 0.3, tmp_path)
        assert raw.train_ids is not None
        assert raw.test_names is not None
        assert {name.split("/")[0] for name in raw.test_names.tolist()} == {"cat", "dog"}
        test = [tuple(image[0][0]) for image in raw.test_images[:].tolist()]
        train = [tuple(image[0][0]) for image in raw.train_images[:].tolist()]
        assert not set(test) & set(train)
        assert (len(test), len(train)) == pytest.approx((0.3 * count, 0.7 * count), rel=0.2)
        sides.append(dict.fromkeys(test, (True, 0)))
        sides[-1] |= {image: (False, int(number)) for image, number in zip(train, raw.train_ids, strict=True)}
    before, after = sides
    assert before.items() <= after.items()


def test_files_that_are_not_read_are_counted_by_their_suffixes(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(root / "test/cat/more/0.png")
    for name in ("a.MOV", "b.mov", "c"):
        (root / "train2/dog" / name).touch()
    directory(root)
    assert capsys.readouterr().out == (
        "fetch: 5 files are ignored: 2 .mov, 1 .txt, 1 without a suffix, 1 in other folders\n"
    )


def test_what_a_mac_and_windows_leave_in_folders_is_ignored_without_a_word(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, listed = directory(root), folders.files_in(root / "train1")
    capsys.readouterr()
    for path in (
        "._cat",
        "cat/._0.png",
        "cat/Icon\r",
        "dog/Thumbs.db",
        "desktop.ini",
        "__MACOSX/cat/._1.png",
    ):
        (root / "train1" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "train1" / path).write_bytes(b"no image")
    again = directory(root)
    assert again.classes == ["cat", "dog"]
    np.testing.assert_array_equal(again.train_images[:], whole.train_images[:])
    assert folders.files_in(root / "train1") == listed
    assert capsys.readouterr().out == "fetch: 1 file is ignored: 1 .txt\n"


def test_a_mac_spells_the_names_of_classes_and_files_in_its_own_way(root: Path, tmp_path: Path) -> None:
    images = []
    for form in ("NFC", "NFD"):
        shutil.copytree(root, tmp_path / form)
        for part in (tmp_path / form).iterdir():
            spelled = partial(unicodedata.normalize, form if part.name == "train1" else "NFC")
            (part / "cat/0.png").rename(part / "cat" / spelled("\u00e9.png"))
            (part / "cat/1.png").rename(part / "cat/f.png")  # before it in one form, after it in the other
            (part / "cat").rename(part / spelled("caf\u00e9"))
        raw = directory(tmp_path / form)
        assert raw.classes == ["caf\u00e9", "dog"]
        images.append(raw.train_images[:])
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("name", ["3:45\u202fPM", "a\u00a0b", "\U0001f468\u200d\U0001f469", "\U0001fae9"])
def test_names_of_screenshots_and_emoji_are_accepted(root: Path, name: str) -> None:
    save(root / f"train1/cat/{name}.png")
    assert len(directory(root).train_labels) == 17


def test_numbers_in_the_names_of_classes_are_part_of_them(root: Path) -> None:
    for part in root.iterdir():
        (part / "cat").rename(part / "1_star")
        (part / "dog").rename(part / "2_star")
    assert directory(root).classes == ["1_star", "2_star"]


def test_photographs_of_a_phone_are_read(root: Path) -> None:
    """HEIC, and HEIC that is called JPEG; motion photos; more than 40 megapixels."""
    pillow_heif.register_heif_opener()
    whole, image = directory(root), Image.new("RGB", (64, 48), (9, 9, 9))
    for name in ("a.HEIC", "b.heif"):
        image.save(root / "train1/cat" / name, "HEIF")
    image.save(root / "train1/dog/c.jpg", "HEIF")
    with (root / "train1/dog/d.jpg").open("wb") as file:
        Image.new("L", (8_000, 6_000), 9).save(file, "JPEG")
        file.write(b"\xff\xda" * 500)
    assert len(directory(root).train_labels) == len(whole.train_labels) + 4


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
    (
        lambda root: [(part / "cat").rename(part / "=cmd|' C'!A0") for part in root.iterdir()],
        "classes that a spreadsheet would take for formulas: =cmd|' C'!A0",
    ),
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
