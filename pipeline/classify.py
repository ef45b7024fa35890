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
import sys
from pathlib import Path

from matplotlib.figure import Figure
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.classification import inference
from pipeline.classification.answers import Answers, Query
from pipeline.classification.inference import LoadedModel
from pipeline.data import images
from pipeline.shared.errors import PipelineError, one_line_errors

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@one_line_errors
def main() -> None:
    """Load the model, classify the images and show the results, also if some files are not images."""
    arguments = parsed_arguments()
    if arguments.top is not None and arguments.top < 1:
        raise PipelineError(f"--top: 1 or more is allowed; received {arguments.top}")
    model = inference.load(arguments.model or inference.champion_uri())
    queries, bad = read_files(arguments.images, model.size)
    queries += read_test_images(model, arguments.index)
    if queries:
        answers = Answers.of(model, queries)
        if arguments.json:
            print(json.dumps(list(answers.rows(arguments.top)), indent=2, ensure_ascii=False))
        elif arguments.csv:
            answers.table(arguments.top).to_csv(sys.stdout, index=False, lineterminator="\n")
        else:
            show(answers, arguments.top or 5)
        if arguments.plot:
            save_figure(answers.plot(), arguments.plot)
    if bad:
        raise PipelineError("; ".join(bad))


def read_files(patterns: list[str], size: int) -> tuple[list[Query], list[str]]:
    """The images that files, folders and patterns name, and a message for each that is not an image."""
    queries, bad = [], []
    for pattern in patterns:
        paths = found(pattern)
        if not paths:
            bad.append(f"{pattern}: no such image" if not Path(pattern).is_dir() else f"{pattern}: no images")
        for path in paths:
            name = printable(path)
            try:
                if not path.is_file():  # reading a pipe would wait for ever
                    raise images.ImageError("not a file")
                queries.append(Query(name, images.decode(path.read_bytes(), size)))
            except (OSError, images.ImageError) as error:
                bad.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    return queries, bad


def printable(path: Path) -> str:
    """A path in one line, with what is not UTF-8, or moves a terminal's cursor, escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(path)
    )


def found(pattern: str) -> list[Path]:
    """The files that a pattern names: a file, all images in and below a folder, or what matches."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
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
        raise PipelineError(f"--index: 0 to {last} are allowed; received {', '.join(map(str, beyond))}")
    return [Query(f"test image {i}", shown[i], int(labels[i])) for i in indices]


def show(answers: Answers, top: int) -> None:
    """The most probable classes of each image, as bars in the terminal."""
    console = Console(highlight=False, markup=False)
    width = max(map(len, answers.classes))
    for answer in answers.rows(top):
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure. Raises PipelineError if the path or its suffix is not usable."""
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
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--csv", action="store_true", help="print CSV")
    arguments = parser.parse_args()
    if not (arguments.images or arguments.index):
        parser.error("name images, or test images by --index")
    return arguments


if __name__ == "__main__":
    main()
