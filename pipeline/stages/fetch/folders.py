"""The user's own images: a folder for each part and class, such as train/cat/1.jpg.

They may come from a Mac, a phone or Windows: what these systems leave in folders is ignored, and names are
compared in Unicode's composed form (NFC), since a Mac writes the accent of an e as a character of its own.
"""

import unicodedata
from collections import Counter
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from pipeline.core.arrays import Rows
from pipeline.shared.content_draw import draw, numbers_of
from pipeline.shared.image_decoding import SUFFIXES, ImageError, decode
from pipeline.shared.on_all_cores import on_all_cores
from pipeline.stages.fetch import file_digests
from pipeline.stages.fetch.decoded_images import DecodedImages
from pipeline.stages.fetch.sources import RawDataset, dataset
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import FORMULA
from pipeline.support.new_files import write_text
from pipeline.support.params_errors import LIMIT, joined, shortened
from pipeline.support.words import count

LEFT_BY_SYSTEMS = {".DS_Store", "Icon\r", "__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
LEFT_BEFORE_NAMES = "._"  # a Mac's file of what the disk cannot hold of another file
# Unicode's categories of control characters and separators; and what joins emoji, which is among them.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINER = "\u200d"


def read(
    folders: dict[str, Path],
    size: int,
    test_fraction: float,
    work: Path,
    unreadable: str = "error",
    fit: str = "crop",
) -> RawDataset:
    """The images of the folders of these parts, `test` and one or more `train*`, as squares of `size` pixels.

    Train folders follow one another in the order of their names, each with its classes mixed. Of a folder for
    `all`, the content of each file decides whether it is among the `test_fraction`: images that are added
    move none of the others, and copies stay together. Prints how many files it ignores, by their suffixes,
    and, if `unreadable` is "warn", which it leaves out, since they cannot be read. Otherwise such files raise
    PipelineError, as do classes that are not in every folder. Keeps in the folder `work` what it decoded, so
    that it decodes only new and changed files.
    """
    ordered = {part: folders[part] for part in sorted(folders, key=lambda part: (part == "test", part))}
    files = {part: files_in(folder) for part, folder in ordered.items()}
    names = class_names(ordered)
    images = {part: _images_of(folder, files[part]) for part, folder in ordered.items()}
    found: dict[str, list[tuple[Path, bytes]]] = {}  # what can be read, and its SHA-256
    problems: list[str] = []
    with DecodedImages(work / "decoded", partial(decode, size=size, trusted=True, fit=fit)) as decoded:
        for part, paths in images.items():
            found[part], reasons = _decode(paths, file_digests.read(work / f"{part}.json"), decoded)
            problems += reasons
        unread = listed(sorted(problems), work / "unreadable.txt")
        if problems and unreadable == "error":
            raise PipelineError(f"images that cannot be read: {unread}")
        pixels, rows = decoded.keep([digest for part in found.values() for _, digest in part])
    if problems:
        print(f"fetch: left out {count(len(problems), 'image')}, which cannot be read: {unread}")
    report_ignored(ordered, files)
    raw, numbers = _arranged(found, names, test_fraction)
    shown = _shown(ordered, found)
    train, test = np.asarray(raw.train_images), np.asarray(raw.test_images)
    return replace(
        raw,
        train_images=Rows(pixels, rows[train]),
        test_images=Rows(pixels, rows[test]),
        train_ids=numbers[train, 1],
        train_names=shown[train],
        test_names=shown[test],
    )


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, by their names, without what systems leave there.

    Raises PipelineError if the folder is missing or holds a name that cannot be printed, a link to a folder,
    in which DVC would not notice edits, or something else, such as a pipe, which would block its reader.
    """
    if not folder.is_dir():
        raise PipelineError(f"{folder}: no such folder of images")
    found = sorted(path for path in folder.rglob("*") if not _is_left(path.relative_to(folder)))
    if unprintable := [shortened(str(path)) for path in found if not _is_printable(path.name)]:
        raise PipelineError(f"names that cannot be printed: {joined(unprintable)}")
    files = [path for path in found if path.is_file()]
    usable = {*files, *(path for path in found if path.is_dir() and not path.is_symlink())}
    if others := [str(path) for path in found if path not in usable]:
        raise PipelineError(f"neither files nor folders, but links to folders or the like: {joined(others)}")
    return sorted(files, key=lambda path: [composed(name) for name in path.parts])


def class_names(folders: dict[str, Path]) -> list[str]:
    """The names of the class folders, which must be the same in all folders. Hidden ones are ignored."""
    found = {
        part: {composed(path.name) for path in folder.iterdir() if path.is_dir() and _is_class(path)}
        for part, folder in folders.items()
    }
    names = sorted(set.union(*found.values()))
    lacking = {name: [part for part in folders if name not in found[part]] for name in names}
    if stray := [f"{name} (not in {', '.join(parts)})" for name, parts in lacking.items() if parts]:
        raise PipelineError(f"classes must be the same in all folders: {', '.join(stray)}")
    if formulas := [name for name in names if FORMULA.match(name)]:
        raise PipelineError(f"classes that a spreadsheet would take for formulas: {', '.join(formulas)}")
    if len(names) < 2:
        where = ", ".join(str(folder) for folder in folders.values())
        raise PipelineError(f"{where}: two or more folders, one for each class, are needed; received {names}")
    return names


def is_image_of_class(path: Path, folder: Path) -> bool:
    """Whether a file is an image, by its suffix, and directly in a class folder of `folder`."""
    return path.suffix.lower() in SUFFIXES and path.parent.parent == folder and _is_class(path.parent)


def listed(problems: list[str], path: Path) -> str:
    """The first problems in a line. Writes all to a file, which it names if there are more."""
    path.unlink(missing_ok=True)
    if problems:
        write_text(path, "".join(f"{problem}\n" for problem in problems))
    more = f": see {path.resolve()}" if len(problems) > LIMIT else ""
    return joined(problems) + more


def report_ignored(folders: dict[str, Path], files: dict[str, list[Path]]) -> None:
    """Print how many files are ignored, such as `5 .mov, 1 in other folders`."""
    ignored: Counter[str] = Counter()
    for part, folder in folders.items():
        for path in files[part]:
            if not is_image_of_class(path, folder):
                suffix = path.suffix.lower()
                ignored["in other folders" if suffix in SUFFIXES else suffix or "without a suffix"] += 1
    if ignored:
        counts = ", ".join(f"{number:,} {kind}" for kind, number in ignored.most_common())
        verb = "is" if ignored.total() == 1 else "are"
        print(f"fetch: {count(ignored.total(), 'file')} {verb} ignored: {counts}")


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def _is_left(path: Path) -> bool:
    return any(name in LEFT_BY_SYSTEMS or name.startswith(LEFT_BEFORE_NAMES) for name in path.parts)


def _is_class(path: Path) -> bool:
    return not (path.name.startswith(".") or path.name in LEFT_BY_SYSTEMS)


def _is_printable(name: str) -> bool:
    return all(unicodedata.category(character) not in UNPRINTABLE for character in name.replace(JOINER, ""))


def _images_of(folder: Path, files: list[Path]) -> list[Path]:
    """The images in the class folders of a folder, with the classes mixed."""
    images = [path for path in files if is_image_of_class(path, folder)]
    if not images:
        raise PipelineError(f"{folder}: no image ({', '.join(SUFFIXES)}) in the folder of a class")
    return [images[row] for row in np.random.default_rng(0).permutation(len(images))]


def _decode(
    files: list[Path], known: file_digests.Table, decoded: DecodedImages
) -> tuple[list[tuple[Path, bytes]], list[str]]:
    """Decode the files that are not `decoded` yet. Those that can be read, each with its SHA-256, and what is
    wrong with the others."""

    def look(path: Path) -> bytes | str:
        try:
            if (digest := bytes.fromhex(file_digests.find(known, path) or "")) in decoded:
                return digest
            content = path.read_bytes()
            digest = sha256(content).digest()
            pixels = None if digest in decoded else decoded.decode(content)
        except (OSError, ImageError) as error:
            return f"{path} ({error})"
        if pixels is not None:
            decoded.add(digest, pixels)
        return digest

    looks = list(on_all_cores(look, files, f"fetch: {files[0].parent.parent}"))
    readable = [(path, look) for path, look in zip(files, looks, strict=True) if isinstance(look, bytes)]
    return readable, [look for look in looks if isinstance(look, str)]


def _shown(folders: dict[str, Path], found: dict[str, list[tuple[Path, bytes]]]) -> np.ndarray:
    """What each image is called: its path in its folder, after the part if there are several."""
    names = [
        path.relative_to(folder) if len(folders) == 1 else part / path.relative_to(folder)
        for part, folder in folders.items()
        for path, _ in found[part]
    ]
    return np.array([composed(str(name)) for name in names])


def _arranged(
    found: dict[str, list[tuple[Path, bytes]]], names: list[str], test_fraction: float
) -> tuple[RawDataset, np.ndarray]:
    """The dataset, with an image's number among all that were found in its place, and the numbers (n, 2) that
    the content of each gives."""
    files = [file for part in found.values() for file in part]
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[composed(path.parent.name)] for path, _ in files], np.int64)
    numbers = np.array([numbers_of(digest) for _, digest in files], np.uint64).reshape(-1, 2)
    parts = np.split(np.arange(len(files)), np.cumsum([len(part) for part in found.values()])[:-1])
    if "all" in found:
        is_test = draw(numbers[:, 0], labels, test_fraction, least=2)
        parts = [np.flatnonzero(~is_test), np.flatnonzero(is_test)]
    return dataset([(rows, labels[rows]) for rows in parts], names), numbers
