"""The image files that the arguments of `classify` name, with their labels."""

import glob
from collections.abc import Sequence
from pathlib import Path

from pipeline.shared.image_decoding import SUFFIXES
from pipeline.stages.fetch.folders import composed

Files = list[tuple[Path, int | None]]  # each with its label, if that is known


def labelled_files(patterns: Sequence[str], classes: list[str]) -> Files:
    """The files that files, folders and patterns name. Those below a folder are labelled by their own folder,
    if all of these have the names of classes."""
    files: Files = []
    for pattern in patterns:
        paths = found(pattern) or [Path(pattern)]
        names = [composed(path.parent.name) for path in paths]
        labelled = Path(pattern).is_dir() and set(names) <= set(classes)
        labels = [classes.index(name) if labelled else None for name in names]
        files += zip(paths, labels, strict=True)
    return files


def found(pattern: str) -> list[Path]:
    """The files that a pattern names: a file, all images in and below a folder, or what matches."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [path] if path.exists() else sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
