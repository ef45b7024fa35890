"""Classify images with the champion, or with any other model.

    python -m pipeline classify cat.jpg photos/ 'more/*.png'    files, folders, patterns
    python -m pipeline classify --index 16                      a test image, with its label
    python -m pipeline classify --index 3 --part train          a training image
    python -m pipeline classify cat.jpg --plot cat.png          a figure; --json or --csv for programs
    python -m pipeline classify photos/ --mistakes         only those whose folder is another class

Reads params.yaml (data.name and source, for the champion's name), MLflow's store and, for --index, the
images of the model's data. Decodes files on all cores, and prints the most probable classes of a batch
of images at a time, so any number of them takes little memory. Images in folders that have the names of
classes are labelled: how many are right is printed at the end. Writes nothing but --plot's figure.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np

from pipeline.commands import loaded_model
from pipeline.commands.image_files import Files, labelled_files
from pipeline.commands.loaded_model import BATCH, LoadedModel
from pipeline.commands.printed_answers import Printer
from pipeline.shared.image_decoding import ImageError, decode
from pipeline.shared.metrics import cross_entropy
from pipeline.shared.on_all_cores import on_all_cores
from pipeline.stages.evaluate import model_figures
from pipeline.stages.report.statistics import wilson
from pipeline.support.errors import PipelineError

PARTS = ("test", "train")


@dataclass(frozen=True)
class Query:
    """An image, uint8 (size, size, 3), with its name, and its label if that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@click.command()
@click.argument("images", nargs=-1)
@click.option(
    "--index", type=int, multiple=True, help="An image of the data, by its number; may be repeated."
)
@click.option(
    "--part", type=click.Choice(PARTS), default=PARTS[0], help="What --index counts; default: test."
)
@click.option("--model", metavar="URI", help="Any MLflow model; by default the champion.")
@click.option("--top", type=click.IntRange(1), help="How many classes to show; default: 5, for programs all.")
@click.option("--mistakes", is_flag=True, help="Print only images whose label is another class.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure: .png, .svg or .pdf.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
def main(
    images: tuple[str, ...],
    index: tuple[int, ...],
    part: str,
    model: str | None,
    top: int | None,
    mistakes: bool,
    plot: Path | None,
    form: str | None,
) -> None:
    """Classify IMAGES: files, folders of them, or patterns."""
    if not (images or index):
        raise click.UsageError("give image files, or the number of an image of the data with --index")
    loaded = loaded_model.load(model or loaded_model.champion_uri())
    bad: list[str] = []
    files = labelled_files(images, loaded.classes)
    queries = chain(read_files(files, loaded, bad), read_numbered(loaded, part, index))
    labelled = bool(index) or any(label is not None for _, label in files)
    if mistakes and not labelled:
        raise PipelineError(f"--mistakes: no image is in the folder of a class: {', '.join(loaded.classes)}")
    printer, right = Printer(form, loaded.classes, labelled), list[bool]()
    drawn: list[tuple[list[Query], np.ndarray]] = []
    try:
        while batch := list(islice(queries, BATCH)):
            probabilities = loaded.probabilities(np.stack([query.pixels for query in batch]))
            verdicts = right_or_wrong(batch, probabilities)
            right += [verdict for verdict in verdicts if verdict is not None]
            if mistakes:
                wrong = [verdict is False for verdict in verdicts]
                batch, probabilities = list(compress(batch, wrong)), probabilities[wrong]
            printer.print(list(answered(batch, probabilities, loaded, top or (None if form else 5))))
            if plot and batch:
                drawn.append((batch, probabilities))
        printer.end()
    except BrokenPipeError:  # `| head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if plot and drawn:
        shown, rows = zip(*drawn, strict=True)
        save_figure(list(chain(*shown)), np.concatenate(rows), loaded, plot)
    print_accuracy(right, sys.stderr if form else sys.stdout)
    if bad:
        raise PipelineError("; ".join(bad))


def right_or_wrong(queries: list[Query], probabilities: np.ndarray) -> list[bool | None]:
    """Whether the most probable class of each image is its label; None if that is not known."""
    found = probabilities.argmax(axis=1).tolist()
    labels = [query.label for query in queries]
    return [None if label is None else label == one for label, one in zip(labels, found, strict=True)]


def print_accuracy(right: list[bool], file: TextIO) -> None:
    """Print how many of the labelled images are right, if there are several."""
    if len(right) > 1:
        low, high = wilson(share := sum(right) / len(right), len(right))
        interval = f"95 % interval {low:.3f} to {high:.3f}"
        print(
            f"classify: {sum(right):,} of {len(right):,} right: accuracy {share:.4f} ({interval})", file=file
        )


def read_files(files: Files, model: LoadedModel, bad: list[str]) -> Iterator[Query]:
    """The images of files. Adds why others cannot be read to `bad`."""
    read = partial(read_file, model=model)
    for query in on_all_cores(read, files, "classify", quiet=len(files) == 1 or sys.stdout.isatty()):
        if isinstance(query, Query):
            yield query
        else:
            bad.append(query)


def read_file(file: tuple[Path, int | None], model: LoadedModel) -> Query | str:
    """An image, or why it cannot be read."""
    path, label = file
    name = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
    if path.is_dir() or not path.exists():
        return f"{name}: no image found"
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise ImageError("not a file")
        return Query(name, decode(path.read_bytes(), model.size, True, model.fit), label)
    except (OSError, ImageError) as error:
        return f"{name}: {getattr(error, 'strerror', None) or error}"


def read_numbered(model: LoadedModel, part: str, indices: Sequence[int]) -> list[Query]:
    """Images of a part of the data by their numbers, from 0, in the order of their source."""
    if not indices:
        return []
    if part not in model.parts:
        raise PipelineError(f"--index: the {part} images of {model.uri} are not in this folder")
    shown, labels = model.parts[part]["images"], model.parts[part]["labels"]
    last = len(labels) - 1
    if beyond := [index for index in indices if not 0 <= index <= last]:
        raise PipelineError(f"--index: must be from 0 to {last}; received {', '.join(map(str, beyond))}")
    return [Query(f"{part} image {i}", shown[i], int(labels[i])) for i in indices]


def answered(
    queries: list[Query], probabilities: np.ndarray, model: LoadedModel, top: int | None
) -> Iterator[dict[str, Any]]:
    """Each prediction as JSON-like data, with all classes in their order or the `top` most probable ones.

    Without a label if the model refuses to name one. For an image of the data with its class, and the
    prediction's cross-entropy in nats.
    """
    classes = model.classes
    for query, row in zip(queries, probabilities, strict=True):
        shown = range(len(row)) if top is None else (-row).argsort(kind="stable")[:top]
        answer: dict[str, Any] = {
            "image": query.name,
            "label": model.label(row),
            "confidence": float(row.max()),
            "probabilities": {classes[number]: float(row[number]) for number in shown},
        }
        if query.label is not None:
            nats = cross_entropy(np.array([query.label]), row[None])[0]
            answer |= {"actual": classes[query.label], "cross_entropy": float(nats)}
        yield answer


def save_figure(queries: list[Query], probabilities: np.ndarray, model: LoadedModel, path: Path) -> None:
    """Draw images and their probabilities. Raises PipelineError if the path or its suffix is not usable."""
    pixels, labels = zip(*((query.pixels, query.label) for query in queries), strict=True)
    names = [
        query.name if model.label(row) else f"{query.name} (no label)"
        for query, row in zip(queries, probabilities, strict=True)
    ]
    figure = model_figures.predictions(np.stack(pixels), probabilities, model.classes, names, list(labels))
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise PipelineError(f"--plot {path}: {getattr(error, 'strerror', None) or error}") from error
