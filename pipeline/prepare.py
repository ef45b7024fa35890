"""Check the images and split off the validation images, once for all variants.

    python -m pipeline.prepare

Reads params.yaml (split) and data/raw. Writes data/prepared/: `train`, `validation` and `test`, each
with images and labels; `split`, the indices into the raw training images, with the classes' names and
the digests of data and split; class_balance.csv and samples.png for a person to look at.
"""

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from pipeline.data.arrays import arrays_digest, digest_of, read_arrays, read_facts, write_arrays
from pipeline.errors import PipelineError, one_line_errors
from pipeline.integrity import check_inputs
from pipeline.params import Params, Split
from pipeline.paths import PARAMS, PREPARED, RAW
from pipeline.running.lock import alone
from pipeline.scoring.figures import sample_grid
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Check, split and write."""
    params = read_params(Params)
    check_inputs(RAW)
    raw, facts = read_arrays(RAW), read_facts(RAW)
    classes = facts["classes"]
    check(raw["train_images"], raw["train_labels"], classes, "training")
    check(raw["test_images"], raw["test_labels"], classes, "test")
    train, validation = split(raw["train_labels"], raw["train_batches"], params.split)
    check_parts(raw["train_labels"], train, validation, classes)
    params.check_sizes(len(train))

    data_digest = arrays_digest(RAW)
    indices = {"train": train, "validation": validation}
    digests = {
        "data_digest": data_digest,
        "split_digest": digest_of([data_digest, train.tolist(), validation.tolist()]),
    }
    parts = {
        part: {"images": raw["train_images"][rows], "labels": raw["train_labels"][rows]}
        for part, rows in indices.items()
    } | {"test": {"images": raw["test_images"], "labels": raw["test_labels"]}}

    write_arrays(PREPARED / "split", indices, **facts, **digests)
    for part, arrays in parts.items():
        write_arrays(PREPARED / part, arrays)
    balance = class_balance({part: arrays["labels"] for part, arrays in parts.items()}, classes)
    balance.to_csv(PREPARED / "class_balance.csv", lineterminator="\n")
    sample_grid(parts["train"]["images"], parts["train"]["labels"], classes).savefig(PREPARED / "samples.png")
    print(f"prepare: {len(train):,} training, {len(validation):,} validation images")


def check(images: np.ndarray, labels: np.ndarray, classes: list[str], part: str) -> None:
    """Raise PipelineError, naming each, where images or labels are not what training takes.

    What it takes: uint8 images (n, 32, 32, 3), none of a single colour throughout as a missing one
    would be, and as many int64 labels, indices of the classes' names, each class with two images or more.
    """
    problems = []
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        problems.append(f"images are {images.dtype} {images.shape}, not uint8 (n, 32, 32, 3)")
    elif (blank := np.flatnonzero(np.ptp(images.reshape(len(images), 32 * 32 * 3), axis=1) == 0)).size:
        problems.append(f"images without content, at {blank[:10].tolist()}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        problems.append(f"labels are {labels.dtype} {labels.shape} for {len(images)} images")
    elif (wrong := np.flatnonzero((labels < 0) | (labels >= len(classes)))).size:
        problems.append(f"labels outside 0 to {len(classes) - 1}, at {wrong[:10].tolist()}")
    elif (few := np.flatnonzero(np.bincount(labels, minlength=len(classes)) < 2)).size:
        problems.append(f"classes with fewer than two images: {', '.join(classes[row] for row in few)}")
    if problems:
        raise PipelineError(f"{RAW}: {part} data: {'; '.join(problems)}")


def split(labels: np.ndarray, batches: np.ndarray, chosen: Split) -> tuple[np.ndarray, np.ndarray]:
    """Indices (int64) of the training and of the validation images: disjoint, together all.

    `stratified`: a fraction of each class, drawn with a seed. `first`: the first fifth, as in the
    document of `baseline`. `batch`: the second batch or train folder, as in that of `model_s`.
    """
    everything = np.arange(len(labels))
    if chosen.strategy == "stratified":
        try:
            train, validation = train_test_split(
                everything, test_size=chosen.fraction, stratify=labels, random_state=chosen.seed
            )
        except ValueError as error:
            raise PipelineError(f"params.yaml: split.fraction {chosen.fraction}: {error}") from error
        return train, validation
    if chosen.strategy == "first":
        fifth = len(labels) // 5
        return everything[fifth:], everything[:fifth]
    if batches.max() < 1:
        raise PipelineError(
            "params.yaml: split.strategy: batch needs two batches or train folders or more; "
            "this dataset has one; allowed here: stratified, first"
        )
    return everything[batches != 1], everything[batches == 1]


def check_parts(labels: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: list[str]) -> None:
    """Raise PipelineError where a split leaves nothing to validate on, or a class without training images."""
    if not len(validation):
        raise PipelineError(f"{PARAMS}: split: of {len(labels)} training images none is left to validate on")
    counts = np.bincount(labels[train], minlength=len(classes))
    if absent := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise PipelineError(f"{PARAMS}: split: no training image is left of {', '.join(absent)}")


def class_balance(labels: dict[str, np.ndarray], classes: list[str]) -> pd.DataFrame:
    """The number of images of each class (rows) in each part of the data (columns)."""
    counts = {part: np.bincount(values, minlength=len(classes)) for part, values in labels.items()}
    return pd.DataFrame(counts, index=pd.Index(classes, name="class"))


if __name__ == "__main__":
    main()
