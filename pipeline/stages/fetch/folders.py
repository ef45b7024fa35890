"""The user's own images: a folder for each part and class, such as train/cat/1.jpg.

They may come from a Mac, a phone or Windows: what these systems leave in folders is ignored, and names are
compared in Unicode's composed form (NFC), since a Mac writes the accent of an e as a character of its own.
"""

import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from joblib import cpu_count
from tqdm import tqdm

from pipeline.shared.content_draw import content_numbers, draw
from pipeline.shared.image_decoding import SUFFIXES, ImageError, decode
from pipeline.stages.fetch.sources import Part, RawDataset, dataset
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import FORMULA
from pipeline.support.params_errors import joined, shortened

LEFT_BY_SYSTEMS = {".DS_Store", "Icon\r", "__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
LEFT_BEFORE_NAMES = "._"  # a Mac's file of what the disk cannot hold of another file
# Unicode's categories of control characters and separators; and what joins emoji, which is among them.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINER = "\u200d"


def read(folders: dict[str, Path], size: int, test_fraction: float, unreadable: str = "error") -> RawDataset:
    """The images of the folders of these parts, `test` and one or more `train*`, as squares of `size` pixels.

    Train folders follow one another in the order of their names, each with its classes mixed. Of a folder for
    `all`, the content of each file decides whether it is among the `test_fraction`: images that are added
    move none of the others, and copies stay together. Prints how many files it ignores, by their suffixes,
    and, if `unreadable` is "warn", which it leaves out, since they cannot be read. Otherwise such files raise
    PipelineError, as do classes that are not in every folder.
    """
    ordered = {part: folders[part] for part in sorted(folders, key=lambda part: (part == "test", part))}
    files = {part: files_in(folder) for part, folder in ordered.items()}
    names = class_names(ordered)
    problems: list[str] = []
    parts, numbers = [], []
    for part, folder in ordered.items():
        images = [path for path in files[part] if is_image_of_class(path, folder)]
        if not images:
            raise PipelineError(f"{folder}: no image ({', '.join(SUFFIXES)}) in the folder of a class")
        images = [images[row] for row in np.random.default_rng(0).permutation(len(images))]
        part_images, part_numbers = _read_part(images, names, size, problems)
        parts.append(part_images)
        numbers.append(part_numbers)
    if problems and unreadable == "error":
        raise PipelineError(f"images that cannot be read: {joined(problems)}")
    if problems:
        print(f"fetch: {len(problems):,} images are left out, since they cannot be read: {joined(problems)}")
    report_ignored(ordered, files)
    if "all" in folders:
        [(pixels, labels)], [drawn] = parts, numbers
        is_test = draw(drawn[:, 0], labels, test_fraction, least=2)
        parts = [(pixels[rows], labels[rows]) for rows in (~is_test, is_test)]
        numbers = [drawn[~is_test], drawn[is_test]]
    return replace(dataset(parts, names), train_ids=np.concatenate(numbers[:-1])[:, 1])


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
    folders = {path for path in found if path.is_dir() and not path.is_symlink()}
    if others := [str(path) for path in found if path not in folders.union(files)]:
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


def report_ignored(folders: dict[str, Path], files: dict[str, list[Path]]) -> None:
    """Print how many files are ignored, such as `5 .mov, 1 in other folders`."""
    ignored: Counter[str] = Counter()
    for part, folder in folders.items():
        for path in files[part]:
            if not is_image_of_class(path, folder):
                suffix = path.suffix.lower()
                ignored["in other folders" if suffix in SUFFIXES else suffix or "without a suffix"] += 1
    if ignored:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in ignored.most_common())
        print(f"fetch: {ignored.total():,} files are ignored: {counts}")


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def _is_left(path: Path) -> bool:
    return any(name in LEFT_BY_SYSTEMS or name.startswith(LEFT_BEFORE_NAMES) for name in path.parts)


def _is_class(path: Path) -> bool:
    return not (path.name.startswith(".") or path.name in LEFT_BY_SYSTEMS)


def _is_printable(name: str) -> bool:
    return all(unicodedata.category(character) not in UNPRINTABLE for character in name.replace(JOINER, ""))


def _read_part(
    files: list[Path], names: list[str], size: int, problems: list[str]
) -> tuple[Part, np.ndarray]:
    """Images of class folders that can be read, and their numbers (n, 2). Adds the others to `problems`."""
    images, numbers = np.zeros((len(files), size, size, 3), np.uint8), np.zeros((len(files), 2), np.uint64)

    def read_image(row: int) -> str | None:
        try:
            content = files[row].read_bytes()
            images[row], numbers[row] = decode(content, size, trusted=True), content_numbers(content)
        except (OSError, ImageError) as error:
            return f"{files[row]} ({error})"
        return None

    title = f"fetch: {files[0].parent.parent}"
    with ThreadPoolExecutor(cpu_count()) as threads:  # Pillow decodes without Python's lock
        found = threads.map(read_image, range(len(files)))
        reasons = list(tqdm(found, title, len(files), unit=" images", disable=None, leave=False))
    problems += [reason for reason in reasons if reason]
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[composed(path.parent.name)] for path in files], np.int64)
    readable = np.array([reason is None for reason in reasons])
    return (images[readable], labels[readable]), numbers[readable]
