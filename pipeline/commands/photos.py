"""From a folder of photographs to a served model, in a job of its own.

    python -m pipeline photos FOLDER [--name pets]

FOLDER has a folder of images for each class, or `train` and `test` with such folders. Prints what is there,
writes a params.yaml that suits it to jobs/NAME/, runs all stages there, and prints what to look at next. If
the job already exists, its params.yaml stays as it is, and the job is brought up to date.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template

import click
import numpy as np

from pipeline.commands import job_folder
from pipeline.params import DatasetName, Directory, Params
from pipeline.shared.image_decoding import ImageError, dimensions
from pipeline.shared.on_all_cores import on_all_cores
from pipeline.stages.fetch import folders
from pipeline.support.errors import PipelineError
from pipeline.support.locks import SingleInstance
from pipeline.support.params_errors import joined, parsed, shortened
from pipeline.support.words import count

JOBS = Path("jobs")
TEMPLATE = Path(__file__).with_name("photos.yaml")
LEAST = 10  # images of a class, which are divided among training, validation and test
# Sizes in pixels, and up to how many images they suit: twice the size takes four times as long.
SIZES = {96: 3_000, 64: 20_000, 48: 100_000}
SMALLEST = 32
BATCHES = {16: 1_000, 32: 10_000, 64: 10**9}  # their sizes likewise
IMBALANCED = 1.5  # times as many images as the smallest class has


@dataclass(frozen=True)
class Survey:
    """What a folder of images holds."""

    folders: dict[str, Path]  # of each part
    counts: dict[str, int]  # images of each class
    sides: np.ndarray  # of each image that can be read, the shorter side in pixels

    @property
    def images(self) -> int:
        """The number of all images."""
        return sum(self.counts.values())


@click.command(cls=SingleInstance)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the job, its experiment and its model; by default the folder's.")
def main(folder: Path, name: str | None) -> None:
    """Train on a FOLDER of images, and print how to serve the best model."""
    folder = folder.expanduser().resolve()
    name = checked_name(name or re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-._"))
    found = survey(folder)
    show(folder, found)
    settings = JOBS / name / "params.yaml"
    if settings.is_file():
        check_job(settings, found)
        params = settings.read_text()
    else:
        params = params_for(name, found)
    print(f"photos: settings in {settings}")
    job_folder.run(settings.parent, params, "example.png", f"other settings  edit {settings}, run this again")


def checked_name(name: str) -> str:
    """The name. Raises PipelineError if a dataset must not have it."""
    try:
        parsed(DatasetName, name)
    except ValueError as error:
        raise PipelineError(f"--name: {error}; received {shortened(name)}") from error
    return name


def survey(folder: Path) -> Survey:
    """Look at a folder and the header of each image. Raises PipelineError if a class has too few images."""
    split = {part: folder / part for part in ("train", "test")}
    parts = split if all(path.is_dir() for path in split.values()) else {"all": folder}
    images = [
        path
        for part in parts.values()
        for path in folders.files_in(part)
        if folders.is_image_of_class(path, part)
    ]
    found = Counter(folders.composed(path.parent.name) for path in images)
    counts = {name: found[name] for name in folders.class_names(parts)}
    if few := [f"{name} has {number}" for name, number in counts.items() if number < LEAST]:
        raise PipelineError(f"{folder}: each class needs {LEAST} images; {joined(few)}")
    looks = list(on_all_cores(short_side, images, f"photos: {folder}"))
    unreadable = [look for look in looks if isinstance(look, str)]
    if len(unreadable) == len(looks):
        raise PipelineError(f"{folder}: no image can be read: {joined(unreadable)}")
    return Survey(parts, counts, np.array([look for look in looks if isinstance(look, int)]))


def short_side(path: Path) -> int | str:
    """The shorter side of an image in pixels, or what is wrong with it."""
    try:
        return min(dimensions(path.read_bytes(), trusted=True))
    except (OSError, ImageError) as error:
        return f"{path} ({error})"


def show(folder: Path, found: Survey) -> None:
    """Print the classes with their numbers of images, and the images' sizes."""
    width = max(map(len, found.counts))
    print(f"photos: {count(found.images, 'image')} in {folder}")
    for name, number in found.counts.items():
        print(f"  {name:{width}}  {number:,}")
    least, middle, most = np.percentile(found.sides, [0, 50, 100])
    print(f"photos: shorter side {least:.0f} to {most:.0f} pixels, median {middle:.0f}")


def check_job(settings: Path, found: Survey) -> None:
    """Raise PipelineError if a job that is there already has other images."""
    data = Params.read(settings).data
    if not isinstance(data, Directory) or data.folders != as_text(found.folders):
        raise PipelineError(f"{settings.parent} already exists, with other images: choose another NAME")


def params_for(name: str, found: Survey) -> str:
    """A params.yaml for these images."""
    side = np.percentile(found.sides, 10)  # so few images are enlarged
    sizes = (size for size, most in SIZES.items() if size <= side and found.images <= most)
    uneven = max(found.counts.values()) > IMBALANCED * min(found.counts.values())
    return Template(TEMPLATE.read_text()).substitute(
        name=name,
        folders=json.dumps(as_text(found.folders), ensure_ascii=False),
        size=next(sizes, SMALLEST),
        strategy="content" if "all" in found.folders else "stratified",
        batch_size=next(size for size, most in BATCHES.items() if found.images <= most),
        class_weight="balanced" if uneven else "null",
        metric="balanced_accuracy" if uneven else "accuracy",
        tensorflow=version("tensorflow"),
        keras=version("keras"),
    )


def as_text(paths: dict[str, Path]) -> dict[str, str]:
    """Paths by their part, as params.yaml has them."""
    return {part: str(path) for part, path in paths.items()}
