"""What JPEG costs the speedrun: its images are coded again, on another grid of blocks, with three seeds.

    python -m benchmarks.dose FOLDER

Trains a small `speedrun` in FOLDER with the data of params.yaml, once for each kind of images and each seed,
one training at a time. After each training it writes the accuracies to benchmarks/dose.json, and at the end
docs/dose.md. Finished trainings are not repeated. Nothing is chosen, so test images are scored, too.
"""

import argparse
import io
import json
import sys
from collections.abc import Mapping
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from benchmarks import dose_page
from benchmarks.dose_page import (
    ANY_GRID,
    AS_THEY_ARE,
    ONE_GRID,
    PARTS,
    QUALITY_75,
    SEEDS,
    SHIFTS,
    VARIANT,
    WITHOUT,
)
from benchmarks.measure import machine, run
from pipeline.commands.job_folder import lay_out
from pipeline.core.arrays import read_arrays, read_facts, write_arrays, write_json
from pipeline.support.errors import one_line_errors
from pipeline.support.paths import PREPARED, RAW

FOUND, TABLE = Path("benchmarks/dose.json"), Path("docs/dose.md")
WIDTHS, EPOCHS, TRAINING_IMAGES = [16, 32, 32], 8, 15_000
BLOCK = 16  # JPEG's blocks have 8 x 8 values; here it halves the resolution of colours, as for most images
CODED: dict[str, tuple[int, str] | None] = {  # the quality, and whose grid is moved how
    AS_THEY_ARE: None,
    "quality_90": (90, "one"),
    QUALITY_75: (75, "one"),
    ONE_GRID: (50, "one"),
    ANY_GRID: (50, "any"),
}
DOSES = [(images, VARIANT) for images in CODED if images != ANY_GRID]


@one_line_errors
def main() -> None:
    """Train what has no accuracy yet, and write the tables."""
    parser = argparse.ArgumentParser(description="Train the speedrun on images that are coded again.")
    parser.add_argument("folder", type=Path, help="where to train; a folder that is continued, or a new one")
    folder = parser.parse_args().folder
    found = json.loads(FOUND.read_text()) if FOUND.is_file() else {"machine": machine(), "scores": {}}
    for cells in (DOSES, SHIFTS):  # so that the costs are known early
        for seed, (images, variant) in product(map(str, SEEDS), cells):
            scores = found["scores"].setdefault(images, {}).setdefault(variant, {})
            if seed not in scores:
                found.setdefault("added", {})[images] = prepare(folder, images)
                scores[seed] = train(folder / images, variant, seed)
                print(f"{images}: {variant}-{seed}: {scores[seed]}", flush=True)
                write_json(FOUND, found)
        TABLE.write_text(dose_page.page(found))


def prepare(folder: Path, images: str) -> float:
    """Lay out the job of a kind of images, if it is not; the mean absolute error that their coding added."""
    original = folder / AS_THEY_ARE
    if not (folder / images / "recipes").is_dir():
        params = YAML(typ="safe").load(Path("params.yaml"))
        params.pop("finetune", None)
        shifted = small(params["variants"][VARIANT])
        still = {**shifted, "network": shifted["network"] | {"shift": 0}}
        params |= {"variants": {VARIANT: shifted, WITHOUT: still}, "seeds": list(SEEDS), "published": {}}
        lay_out(folder / images, json.dumps(params))
        if images == AS_THEY_ARE:
            stage("fetch", original)
        else:
            arrays, facts = read_arrays(original / RAW), read_facts(original / RAW)
            again = {part: coded(arrays[part], CODED[images]) for part in ("train_images", "test_images")}
            write_arrays(folder / images / RAW, {**arrays, **again}, **facts)
        stage("prepare", folder / images)
        stage("recipes", folder / images)
    first, second = (read_arrays(each / RAW)["train_images"] for each in (original, folder / images))
    return float(np.abs(first.astype(np.int16) - second).mean())


def small(block: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with fewer filters, epochs and images, in float32 on any machine, without views."""
    changes = {"epochs": EPOCHS, "training_images": TRAINING_IMAGES, "precision": "float32", "views": None}
    return {**block, "network": block["network"] | {"widths": WIDTHS}, **changes}


def coded(images: np.ndarray, how: tuple[int, str] | None) -> np.ndarray:
    """Images, uint8 (n, size, size, 3), after JPEG on a grid that is moved from their own.

    Each image is laid on a larger one, which continues its edges, some pixels from the corner: half a block,
    or for `any` grid so many as are drawn for it.
    """
    if how is None:
        return images
    quality, grid = how
    half = np.full((len(images), 2), BLOCK // 4)
    offsets = half if grid == "one" else np.random.default_rng(0).integers(0, BLOCK, half.shape)
    return np.stack([code(image, quality, *at) for image, at in zip(images, offsets, strict=True)])


def code(image: np.ndarray, quality: int, top: int, left: int) -> np.ndarray:
    """An image after JPEG, with its first pixel so far from the corner of a block."""
    size = len(image)
    padded = np.pad(image, ((top, -(size + top) % BLOCK), (left, -(size + left) % BLOCK), (0, 0)), "edge")
    file = io.BytesIO()
    Image.fromarray(padded).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[top : top + size, left : left + size]


def stage(name: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Run a stage in a folder; its seconds."""
    return run([sys.executable, "-m", "pipeline", name, *arguments], folder, {})


def train(folder: Path, variant: str, seed: str) -> dict[str, float]:
    """Train a variant with a seed; its accuracies on validation and test images, and its CPU seconds."""
    seconds = stage("train", folder, variant, seed)["cpu"]
    stage("predict", folder, variant, seed)
    with chdir(folder):
        probabilities = read_arrays(Path(f"predictions/{variant}-{seed}"))
        scores = {
            part: float((probabilities[part].argmax(axis=1) == read_arrays(PREPARED / part)["labels"]).mean())
            for part in PARTS
        }
    return scores | {"cpu": seconds}


if __name__ == "__main__":
    main()
