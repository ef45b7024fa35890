"""Classify images with the champion, or with any other model.

    python -m pipeline classify cat.jpg photos/ 'more/*.png'    files, folders, patterns
    python -m pipeline classify --index 16                      a test image, with its label
    python -m pipeline classify cat.jpg --plot cat.png          a figure; --json or --csv for programs

Reads params.yaml (data.name and source, for the champion's name), MLflow's store and, for --index, the
test images of the model's data. Prints the most probable classes; writes nothing but --plot's figure.
"""

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands import loaded_model
from pipeline.commands.loaded_model import LoadedModel
from pipeline.shared.image_decoding import SUFFIXES, ImageError, decode
from pipeline.shared.metrics import cross_entropy
from pipeline.stages.evaluate import model_figures
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import without_formula

IN_ASCII = str.maketrans("█▉▊▋▌▍▎▏", "#####   ")  # of a bar's blocks


@dataclass(frozen=True)
class Query:
    """An image, uint8 (size, size, 3), with its name, and its label if that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@click.command()
@click.argument("images", nargs=-1)
@click.option("--index", type=int, multiple=True, help="A test image, by its number; may be repeated.")
@click.option("--model", metavar="URI", help="Any MLflow model; by default the champion.")
@click.option("--top", type=click.IntRange(1), help="How many classes to show; default: 5, for programs all.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure: .png, .svg or .pdf.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
def main(
    images: tuple[str, ...],
    index: tuple[int, ...],
    model: str | None,
    top: int | None,
    plot: Path | None,
    form: str | None,
) -> None:
    """Classify IMAGES: files, folders of them, or patterns."""
    if not (images or index):
        raise click.UsageError("give image files, or the number of a test image with --index")
    loaded = loaded_model.load(model or loaded_model.champion_uri())
    queries, bad = read_files(images, loaded.size, loaded.fit)
    queries += read_test_images(loaded, index)
    if queries:
        probabilities = loaded.probabilities(np.stack([query.pixels for query in queries]))
        answers = list(answered(queries, probabilities, loaded, top or (None if form else 5)))
        try:
            print_answers(answers, form)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if plot:
            save_figure(queries, probabilities, loaded, plot)
    if bad:
        raise PipelineError("; ".join(bad))


def print_answers(answers: list[dict[str, Any]], form: str | None) -> None:
    """Print predictions as `json`, as `csv`, or by default as bars."""
    if form == "json":
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    elif form == "csv":
        table = pd.DataFrame(answers)
        columns = table.drop(columns="probabilities"), pd.DataFrame(list(table["probabilities"]))
        quoted = pd.concat(columns, axis=1).map(without_formula).rename(columns=without_formula)
        quoted.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        show(answers)


def read_files(patterns: Sequence[str], size: int, fit: str) -> tuple[list[Query], list[str]]:
    """The images that files, folders and patterns name, and a message for each one that cannot be read."""
    queries, bad = [], []
    for pattern in patterns:
        paths = found(pattern)
        if not paths:
            bad.append(f"{pattern}: no image found")
        for path in paths:
            name = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
            try:
                if not path.is_file():  # reading a pipe would wait for ever
                    raise ImageError("not a file")
                queries.append(Query(name, decode(path.read_bytes(), size, True, fit)))
            except (OSError, ImageError) as error:
                bad.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    return queries, bad


def found(pattern: str) -> list[Path]:
    """The files that a pattern names: a file, all images in and below a folder, or what matches."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [path] if path.exists() else sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207


def read_test_images(model: LoadedModel, indices: Sequence[int]) -> list[Query]:
    """Test images by their numbers, from 0."""
    if not indices:
        return []
    if model.test is None:
        raise PipelineError(
            f"--index: the test images that {model.uri} was evaluated on are not in this folder"
        )
    shown, labels = model.test["images"], model.test["labels"]
    last = len(labels) - 1
    if beyond := [index for index in indices if not 0 <= index <= last]:
        raise PipelineError(f"--index: must be from 0 to {last}; received {', '.join(map(str, beyond))}")
    return [Query(f"test image {i}", shown[i], int(labels[i])) for i in indices]


def answered(
    queries: list[Query], probabilities: np.ndarray, model: LoadedModel, top: int | None
) -> Iterator[dict[str, Any]]:
    """Each prediction as JSON-like data, with all classes in their order or the `top` most probable ones.

    Without a label if the model refuses to name one. For a test image with its class, and the prediction's
    cross-entropy in nats.
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


def show(answers: list[dict[str, Any]]) -> None:
    """Print the probabilities of each image as bars."""
    console = Console(highlight=False, markup=False)
    width = max(len(name) for answer in answers for name in answer["probabilities"])
    with console.capture() as bars:  # printed below, since Rich exits if the pipe is closed
        for answer in answers:
            title = Text(answer["image"], "bold")
            if "actual" in answer:
                title.append(
                    f" is {answer['actual']}, cross-entropy {answer['cross_entropy']:.3f} nats", "not bold"
                )
            if answer["label"] is None:
                title.append(" has no label: the model is not sure enough", "not bold")
            console.print(title, soft_wrap=True)
            table = Table.grid(padding=(0, 1))
            for name, value in answer["probabilities"].items():
                colour = "green" if name == answer.get("actual", answer["label"]) else "bright_black"
                table.add_row(f"  {name:{width}}", Bar(1, 0, value, width=40, color=colour), f"{value:6.1%}")
            console.print(table)
    utf = console.encoding.startswith("utf")
    print(bars.get() if utf else bars.get().translate(IN_ASCII), end="")


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
