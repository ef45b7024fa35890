"""Classify images with the champion, or with any other model.

    python -m pipeline.classify cat.jpg photos/ 'more/*.png'    files, folders, patterns
    python -m pipeline.classify --index 16                      a test image, with its label
    python -m pipeline.classify cat.jpg --plot cat.png          a figure; --json or --csv for programs

Reads params.yaml (data.name and source, for the champion's name), MLflow's store and, for --index, the
test images of the model's data. Prints the most probable classes; writes nothing but --plot's figure.
"""

import argparse
import glob
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.classification import inference
from pipeline.classification.inference import LoadedModel
from pipeline.data import images
from pipeline.scoring import figures
from pipeline.scoring.metrics import cross_entropy
from pipeline.shared.errors import PipelineError, one_line_errors


@dataclass(frozen=True)
class Query:
    """An image, uint8 (size, size, 3), with its name, and its label if that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@one_line_errors
def main() -> None:
    """Load the model, classify the images and show the results, also if some files are not images."""
    arguments = parsed_arguments()
    if arguments.top is not None and arguments.top < 1:
        raise PipelineError(f"--top: must be 1 or more; received {arguments.top}")
    model = inference.load(arguments.model or inference.champion_uri())
    queries, bad = read_files(arguments.images, model.size)
    queries += read_test_images(model, arguments.index)
    if queries:
        probabilities = model.probabilities(np.stack([query.pixels for query in queries]))
        top = arguments.top or (None if arguments.form else 5)
        answers = list(answered(queries, probabilities, model.classes, top))
        try:
            print_answers(answers, arguments.form)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if arguments.plot:
            save_figure(queries, probabilities, model.classes, arguments.plot)
    if bad:
        raise PipelineError("; ".join(bad))


def print_answers(answers: list[dict[str, Any]], form: str | None) -> None:
    """Print predictions as `json`, as `csv`, or by default as bars."""
    if form == "json":
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    elif form == "csv":
        table = pd.DataFrame(answers)
        columns = table.drop(columns="probabilities"), pd.DataFrame(list(table["probabilities"]))
        pd.concat(columns, axis=1).to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        show(answers)


def read_files(patterns: list[str], size: int) -> tuple[list[Query], list[str]]:
    """The images that files, folders and patterns name, and a message for each that is not an image."""
    queries, bad = [], []
    for pattern in patterns:
        paths = found(pattern)
        if not paths:
            bad.append(f"{pattern}: no such image" if not Path(pattern).is_dir() else f"{pattern}: no images")
        for path in paths:
            name = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
            try:
                if not path.is_file():  # reading a pipe would wait for ever
                    raise images.ImageError("not a file")
                queries.append(Query(name, images.decode(path.read_bytes(), size)))
            except (OSError, images.ImageError) as error:
                bad.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    return queries, bad


def found(pattern: str) -> list[Path]:
    """The files that a pattern names: a file, all images in and below a folder, or what matches."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in images.SUFFIXES)
    return [path] if path.exists() else sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207


def read_test_images(model: LoadedModel, indices: list[int]) -> list[Query]:
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
    queries: list[Query], probabilities: np.ndarray, classes: list[str], top: int | None
) -> Iterator[dict[str, Any]]:
    """Each prediction as JSON-like data, with all classes in their order or the `top` most probable ones.

    For a test image with its class, and the prediction's cross-entropy in nats.
    """
    for query, row in zip(queries, probabilities, strict=True):
        shown = range(len(row)) if top is None else (-row).argsort(kind="stable")[:top]
        answer: dict[str, Any] = {
            "image": query.name,
            "label": classes[int(row.argmax())],
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
            console.print(title, soft_wrap=True)
            table = Table.grid(padding=(0, 1))
            for name, value in answer["probabilities"].items():
                colour = "green" if name == answer.get("actual", answer["label"]) else "bright_black"
                table.add_row(f"  {name:{width}}", Bar(1, 0, value, width=40, color=colour), f"{value:6.1%}")
            console.print(table)
    print(bars.get(), end="")


def save_figure(queries: list[Query], probabilities: np.ndarray, classes: list[str], path: Path) -> None:
    """Draw images and their probabilities. Raises PipelineError if the path or its suffix is not usable."""
    pixels, names, labels = zip(*((query.pixels, query.name, query.label) for query in queries), strict=True)
    figure = figures.predictions(np.stack(pixels), probabilities, classes, list(names), list(labels))
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise PipelineError(f"--plot {path}: {getattr(error, 'strerror', None) or error}") from error


def parsed_arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description="Classify images with the champion or another model.")
    parser.add_argument("images", nargs="*", help="image files, folders of them, or patterns")
    parser.add_argument("--index", type=int, nargs="+", default=[], help="test images, by their numbers")
    parser.add_argument("--model", help="any MLflow model URI; default: the champion")
    parser.add_argument(
        "--top", type=int, help="how many classes to show (default: 5; with --json and --csv all)"
    )
    parser.add_argument("--plot", type=Path, help="write a figure here: .png, .svg or .pdf")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", dest="form", action="store_const", const="json", help="print JSON")
    output.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    arguments = parser.parse_args()
    if not (arguments.images or arguments.index):
        parser.error("give image files, or numbers of test images with --index")
    return arguments


if __name__ == "__main__":
    main()
