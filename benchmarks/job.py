"""A job of its own in a temporary folder: a checkout's pipeline, on fewer images and epochs."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML

from pipeline.commands.job_folder import lay_out
from pipeline.core.arrays import read_arrays, read_facts
from pipeline.support.errors import PipelineError
from pipeline.support.paths import RAW


def make(
    folder: Path,
    images: Path,
    epochs: int,
    variants: list[str] | None = None,
    seeds: Sequence[int] = (0,),
    checkout: Path = Path(),
    **training: Any,
) -> Path:
    """Set up `folder` with the pipeline of a checkout, its params.yaml changed to these epochs, variants,
    seeds and `training` (its threads and precision), and DVC."""
    params = YAML(typ="safe").load(checkout / "params.yaml")
    folders = {"folders": {part: str(images / part) for part in ("train", "test")}}
    watched = "folders" in params["data"]  # older commits have one `directory`
    params["data"] |= {"source": "directory", "name": "benchmark"}
    params["data"] |= folders if watched else {"directory": str(images)}
    params["seeds"] = list(seeds)
    params["training"] |= training
    finetune = params.get("finetune")
    for group in filter(None, (params, finetune)):
        chosen = {
            name: block for name, block in group["variants"].items() if not variants or name in variants
        }
        group["variants"] = {name: unstopped(block, epochs) for name, block in chosen.items()}
    if finetune and finetune["init_from"] not in params["variants"]:
        finetune["init_from"] = next(iter(params["variants"]))
    with contextlib.chdir(checkout):
        lay_out(folder, json.dumps(params))
    return folder


def unstopped(block: dict[str, Any], epochs: int) -> dict[str, Any]:
    """A variant's block with so many epochs, none fewer."""
    kept = {
        key: value for key, value in block.items() if key not in {"early_stopping", "reduce_learning_rate"}
    }
    return kept | {"epochs": epochs, "training_images": None}


def write_images(folder: Path, images: int) -> Path:
    """The first images of data/raw as files, and a fifth as many to test: folder/{train,test}/CLASS/N.png."""
    if not (RAW / "manifest.json").is_file():
        raise PipelineError(f"{RAW}: no images yet: `dvc repro prepare` gets them")
    arrays, classes = read_arrays(RAW), read_facts(RAW)["classes"]
    for part, count in (("train", images), ("test", images // 5)):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
        pairs = zip(arrays[f"{part}_images"][:count], arrays[f"{part}_labels"][:count], strict=True)
        for number, (image, label) in enumerate(pairs):
            Image.fromarray(image).save(folder / part / classes[label] / f"{number:05d}.png")
    return folder
