"""Check the images and set some training images aside for validation, the same ones for all variants.

    python -m pipeline prepare

Reads params.yaml (split) and data/raw. Writes data/prepared/: `train`, `validation` and `test`, each with
images and labels; `split`, the indices into the raw training images, with the facts that later stages need;
`ids`, by which a registered version names the images that it was trained on; `names`, what images are
called where a person reads of them; class_balance.csv and samples.png for a person to look at.
"""

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

from pipeline.core.arrays import Rows, arrays_digest, read_arrays, read_facts, write_arrays
from pipeline.params import Params, Split
from pipeline.shared.content_draw import content_numbers, draw
from pipeline.shared.figure_style import new_figure
from pipeline.stages.prepare import exact_duplicates
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.new_files import write_figure, write_table
from pipeline.support.params_errors import joined
from pipeline.support.paths import PARAMS, PREPARED, RAW


@click.command(cls=SingleInstance)
def main() -> None:
    """Check, split and write."""
    strategy = Params.read().split
    check_inputs(RAW)
    raw, facts = read_arrays(RAW), read_facts(RAW)
    classes = facts["classes"]
    train_names, test_names = (names_of(raw, part) for part in ("train", "test"))
    check(raw["train_images"], raw["train_labels"], classes, "training", train_names)
    check(raw["test_images"], raw["test_labels"], classes, "test", test_names)
    ids = raw["train_ids"] if "train_ids" in raw else ids_of(raw["train_images"])
    train, validation = split(raw["train_labels"], raw["train_batches"], ids, strategy)
    check_parts(raw["train_labels"], train, validation, classes)
    duplicates, twins = exact_duplicates.find(raw["train_images"], raw["test_images"], validation)
    exact_duplicates.check(duplicates, twins, (train_names, test_names), strategy.duplicates)

    indices, digest = {"train": train, "validation": validation}, arrays_digest(RAW)
    parts = {
        part: {"images": Rows(raw["train_images"], rows), "labels": raw["train_labels"][rows]}
        for part, rows in indices.items()
    }
    parts["test"] = {"images": raw["test_images"], "labels": raw["test_labels"]}

    facts |= {
        "image_shape": list(raw["train_images"].shape[1:]),
        "counts": {part: len(arrays["labels"]) for part, arrays in parts.items()},
        "data_digest": digest,
        "split_digest": digest_of([digest, train.tolist(), validation.tolist()]),
        "duplicates": duplicates,
    }
    write_arrays(PREPARED / "split", indices, **facts)
    write_arrays(PREPARED / "ids", {part: ids[rows] for part, rows in indices.items()})
    names = {part: train_names[rows] for part, rows in indices.items()} | {"test": test_names}
    write_arrays(PREPARED / "names", names)
    for part, arrays in parts.items():
        write_arrays(PREPARED / part, arrays)
    balance = {part: np.bincount(arrays["labels"], minlength=len(classes)) for part, arrays in parts.items()}
    index = pd.Index(classes, name="class")
    write_table(PREPARED / "class_balance.csv", pd.DataFrame(balance, index), index=True)
    samples = sample_grid(parts["train"]["images"], parts["train"]["labels"], classes)
    write_figure(PREPARED / "samples.png", samples)
    print(f"prepare: {len(train):,} training, {len(validation):,} validation images")


def names_of(raw: dict[str, np.ndarray], part: str) -> np.ndarray:
    """What the images of a part are called, str (n,): files by their paths, others by their numbers."""
    stored = raw.get(f"{part}_names")
    if stored is not None:
        return stored
    return np.array([f"{part} image {row}" for row in range(len(raw[f"{part}_labels"]))])


def check(images: np.ndarray, labels: np.ndarray, classes: list[str], part: str, names: np.ndarray) -> None:
    """Raise PipelineError with every problem of the images and labels of a part of the raw data.

    Images, which have `names`, must be uint8 (n, size, size, 3), and none of a single colour, as a missing
    image would be. Labels must be int64 (n,), indices of `classes`, with at least two images of each class.
    """
    problems = []
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (*images.shape[1:2] * 2, 3):
        problems.append(f"images are {images.dtype} {images.shape}, not uint8 (n, size, size, 3)")
    elif (blank := np.flatnonzero(np.ptp(images, axis=(1, 2, 3)) == 0)).size:
        problems.append(f"images of a single colour: {joined(names[blank].tolist())}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        problems.append(f"labels are {labels.dtype} {labels.shape} for {len(images)} images")
    elif (wrong := np.flatnonzero((labels < 0) | (labels >= len(classes)))).size:
        problems.append(f"labels outside 0 to {len(classes) - 1}, at {wrong[:10].tolist()}")
    elif (few := np.flatnonzero(np.bincount(labels, minlength=len(classes)) < 2)).size:
        problems.append(f"classes with fewer than two images: {', '.join(classes[row] for row in few)}")
    if problems:
        raise PipelineError(f"{RAW}: {part} data: {'; '.join(problems)}")


def ids_of(images: np.ndarray) -> np.ndarray:
    """The ids of images that are not from files, uint64 (n,), by their pixels."""
    return np.array([content_numbers(image.tobytes())[1] for image in images], np.uint64)


def split(
    labels: np.ndarray, batches: np.ndarray, ids: np.ndarray, chosen: Split
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (int64) of the training and of the validation images: disjoint, and together all images.

    By strategy, the validation images are a fraction of each class, drawn at random with a seed
    (`stratified`) or by their ids (`content`), so that added images move none of the others; the first fifth,
    as in the document of `baseline` (`first`); or the second batch or train folder, as in that of `model_s`
    (`batch`).
    """
    everything = np.arange(len(labels))
    if chosen.strategy == "stratified":
        try:
            train, validation = train_test_split(
                everything, test_size=chosen.fraction, stratify=labels, random_state=chosen.seed
            )
        except ValueError as error:
            raise PipelineError(f"{PARAMS}: split.fraction {chosen.fraction}: {error}") from error
        return train, validation
    if chosen.strategy == "content":
        drawn = draw(ids, labels, chosen.fraction, least=1)
        return everything[~drawn], everything[drawn]
    if chosen.strategy == "first":
        fifth = len(labels) // 5
        return everything[fifth:], everything[:fifth]
    return everything[batches != 1], everything[batches == 1]


def check_parts(labels: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: list[str]) -> None:
    """Raise PipelineError if a split leaves a class without training images or without validation images."""
    for part, rows in (("training", train), ("validation", validation)):
        if absent := [name for label, name in enumerate(classes) if label not in labels[rows]]:
            raise PipelineError(
                f"{PARAMS}: split: leaves no {part} image of {', '.join(absent)}: each class needs one; add "
                "images, or change split.fraction or split.strategy"
            )


def sample_grid(images: np.ndarray | Rows, labels: np.ndarray, classes: list[str]) -> Figure:
    """The first eight images of each of the first ten classes, one row for each class."""
    shown = classes[:10]
    figure = new_figure(8, len(shown))
    for label, row in enumerate(figure.subplots(len(shown), 8, squeeze=False)):
        for axis in row:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, index in zip(row, np.flatnonzero(labels == label), strict=False):
            axis.imshow(images[index])
        row[0].set_ylabel(shown[label], rotation=0, ha="right", va="center")
    return figure
