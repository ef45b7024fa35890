"""Only new and changed files are read and decoded again, and nothing that is kept for this is trusted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.shared.image_decoding import decode
from pipeline.stages.fetch import decoded_images, file_digests, folders
from pipeline.stages.fetch.sources import RawDataset
from pipeline.support.digests import file_digest
from tests.conftest import ROOT
from tests.stages.fetch.test_folders import save

COUNT = 12
RECORD = 32 + 32 + 8 * 8 * 3  # bytes


def read(root: Path, size: int = 8) -> RawDataset:
    return folders.read({"all": root / "pets"}, size, 0.3, root / "work")


def arrays(raw: RawDataset) -> dict[str, list[object]]:
    return {name: array[:].tolist() for name, array in raw.arrays().items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with images of two classes."""
    for number in range(COUNT):
        save(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png", (number, 7, 7))
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents of the files that are decoded from now on."""
    contents: list[bytes] = []

    def recorded(content: bytes, **settings: Any) -> np.ndarray:
        contents.append(content)
        return decode(content, **settings)

    monkeypatch.setattr(folders, "decode", recorded)
    return contents


def test_only_new_and_changed_files_are_decoded_again(root: Path, decoded: list[bytes]) -> None:
    pets = root / "pets"
    first = arrays(read(root))
    assert len(decoded) == COUNT
    assert arrays(read(root)) == first
    assert len(decoded) == COUNT

    save(pets / "cat/0.png", (100, 7, 7))
    save(pets / "cat/new.png", (101, 7, 7))
    (pets / "cat/2.png").rename(pets / "cat/moved.png")
    (pets / "dog/1.png").touch()
    (pets / "dog/copy.png").write_bytes((pets / "dog/3.png").read_bytes())
    (pets / "dog/5.png").unlink()
    changed = arrays(read(root))
    assert sorted(decoded[COUNT:]) == sorted((pets / f"cat/{name}.png").read_bytes() for name in ("0", "new"))
    assert (root / "work/decoded").stat().st_size == COUNT * RECORD  # one more, one fewer

    read(root, size=9)
    assert len(set(decoded[COUNT + 2 :])) == COUNT  # two threads may decode the two copies at once
    (root / "work/decoded").unlink()
    assert arrays(read(root)) == changed


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda content: np.delete(content, np.s_[-1:]), 1),
        (lambda content: np.delete(content, np.s_[:1]), COUNT),
        (lambda content: content[:0], COUNT),
        (lambda content: np.random.default_rng(0).integers(0, 256, len(content), np.uint8), COUNT),
        (lambda content: np.where(np.arange(len(content)) == 5 * RECORD + 40, content + 1, content), 1),
        (lambda content: np.where(np.arange(len(content)) == 5 * RECORD + 99, content + 1, content), 1),
    ],
    ids=["cut off", "moved", "empty", "another file", "check", "pixel"],
)
def test_what_is_damaged_is_decoded_again(
    root: Path, decoded: list[bytes], damage: Callable[[np.ndarray], np.ndarray], lost: int
) -> None:
    first = arrays(read(root))
    kept = root / "work/decoded"
    kept.write_bytes(damage(np.frombuffer(kept.read_bytes(), np.uint8)).astype(np.uint8).tobytes())
    assert arrays(read(root)) == first
    assert len(decoded) == COUNT + lost


def test_pixels_of_another_decoder_are_not_used(
    root: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = arrays(read(root))
    monkeypatch.setattr(decoded_images, "version", lambda _: "another")
    assert arrays(read(root)) == first
    assert len(decoded) == 2 * COUNT


KILLED = """
import os, pathlib, signal, sys
from pipeline.stages.fetch import folders

decode, calls = folders.decode, []

def killing(*arguments, **named):
    calls.append(1)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*arguments, **named)

folders.decode = killing
root = pathlib.Path(sys.argv[1])
folders.read({"all": root / "pets"}, 8, 0.3, root / "work")
"""


def test_a_killed_fetch_loses_only_what_it_was_decoding(root: Path, decoded: list[bytes]) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, root], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = arrays(read(root))
    assert COUNT - 9 < len(decoded) < COUNT
    (root / "work/decoded").unlink()
    assert arrays(read(root)) == resumed


def test_an_image_that_cannot_be_read_does_not_lose_the_others(root: Path, decoded: list[bytes]) -> None:
    (root / "pets/cat/bad.png").write_bytes(b"no image")
    with pytest.raises(Exception, match="cannot be read"):
        read(root)
    (root / "pets/cat/bad.png").unlink()
    read(root)
    assert len(decoded) == COUNT + 1


# The SHA-256 of files


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names: list[str] = []

    def recorded(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(file_digests, "file_digest", recorded)
    return names


def update(root: Path) -> list[str]:
    return file_digests.update(root / "table.json", sorted(root.rglob("*.png")), "watch")


def test_only_files_that_may_have_changed_are_hashed_again(
    root: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = update(root)
    assert update(root) == first
    assert len(hashed) == 2 * COUNT  # all had just been written
    monkeypatch.setattr(file_digests, "RACY", -(10**12))
    assert update(root) == update(root) == first
    assert len(hashed) == 3 * COUNT

    path, times = root / "pets/cat/0.png", (root / "pets/cat/0.png").stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)  # the same size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sum(one != other for one, other in zip(update(root), first, strict=True)) == 1
    assert hashed[3 * COUNT :] == ["0.png"]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace("1", "2"), lambda _: "[]", lambda _: "\0"]
)
def test_a_damaged_table_is_not_used(
    root: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str]
) -> None:
    monkeypatch.setattr(file_digests, "RACY", -(10**12))
    first, table = update(root), root / "table.json"
    assert json.loads(table.read_text())["files"]
    table.write_text(damage(table.read_text()))
    assert update(root) == first
    assert len(hashed) == 2 * COUNT


def test_fetch_reads_no_file_that_watch_has_hashed_and_fetch_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "RACY", -(10**12))
    first = arrays(read(root))
    file_digests.update(root / "work/all.json", folders.files_in(root / "pets"), "watch")
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: path.suffix == ".json" and read_bytes(path))
    assert arrays(read(root)) == first
