"""The user's own images: a folder for each part and class, such as train/cat/1.jpg."""

from pathlib import Path

import numpy as np

from pipeline.shared.image_decoding import SUFFIXES, ImageError, decode
from pipeline.stages.fetch.sources import Part, RawDataset, dataset
from pipeline.support.errors import PipelineError
from pipeline.support.params_errors import joined, shortened


def read(folders: dict[str, Path], size: int) -> RawDataset:
    """The images of the folders of these parts, `test` and one or more `train*`, as squares of `size` pixels.

    Train folders follow one another in the order of their names, each with its classes mixed. Raises
    PipelineError with all files that cannot be read, or all classes that are not in every folder.
    """
    ordered = {part: folders[part] for part in sorted(folders, key=lambda part: (part == "test", part))}
    files = sum(len(files_in(folder)) for folder in ordered.values())
    names = class_folders(ordered)
    problems: list[str] = []
    parts = [_read_part(folder, names, size, problems) for folder in ordered.values()]
    if problems:
        raise PipelineError(f"images that cannot be read: {joined(problems)}")
    if ignored := files - sum(len(labels) for _, labels in parts):
        print(f"fetch: {ignored:,} files are ignored: they are not images, or not directly in a class folder")
    return dataset(parts, names)


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted.

    Raises PipelineError if the folder is missing or holds a name that cannot be printed, a link to a folder,
    in which DVC would not notice edits, or something else, such as a pipe, which would block its reader.
    """
    if not folder.is_dir():
        raise PipelineError(f"{folder}: no such folder of images")
    found = sorted(folder.rglob("*"))
    if unprintable := [shortened(str(path)) for path in found if not path.name.isprintable()]:
        raise PipelineError(f"names that cannot be printed: {joined(unprintable)}")
    files = [path for path in found if path.is_file()]
    folders = {path for path in found if path.is_dir() and not path.is_symlink()}
    if others := [str(path) for path in found if path not in folders.union(files)]:
        raise PipelineError(f"neither files nor folders, but links to folders or the like: {joined(others)}")
    return files


def class_folders(folders: dict[str, Path]) -> list[str]:
    """The names of the class folders, which must be the same in all folders. Hidden ones are ignored."""
    found = {
        part: {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        for part, folder in folders.items()
    }
    names = sorted(set.union(*found.values()))
    lacking = {name: [part for part in folders if name not in found[part]] for name in names}
    if stray := [f"{name} (not in {', '.join(parts)})" for name, parts in lacking.items() if parts]:
        raise PipelineError(f"classes must be the same in all folders: {', '.join(stray)}")
    if len(names) < 2:
        where = ", ".join(str(folder) for folder in folders.values())
        raise PipelineError(f"{where}: two or more folders, one for each class, are needed; received {names}")
    return names


def _read_part(folder: Path, names: list[str], size: int, problems: list[str]) -> Part:
    """The images of a folder's classes, mixed. Adds files that cannot be read, and why, to `problems`."""
    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise PipelineError(f"{folder}: no image (.png, .jpg, .jpeg or .webp)")
    images, labels = [], []
    for row in np.random.default_rng(0).permutation(len(files)):
        path, label = files[row]
        try:
            images.append(decode(path.read_bytes(), size))
            labels.append(label)
        except (OSError, ImageError) as error:
            problems.append(f"{path} ({error})")
    return np.array(images), np.array(labels, np.int64)
