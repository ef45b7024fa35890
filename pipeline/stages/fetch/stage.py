"""Fetch the dataset that params.yaml names.

    python -m pipeline fetch

Reads params.yaml (data) and the source that it names: CIFAR-10's archive, scikit-learn's digits or the user's
folders. Writes data/raw, the source's images and labels, and keeps a downloaded archive in data/download,
and the pixels of decoded files in .pipeline/images.
"""

from pathlib import Path

import click

from pipeline.core.arrays import write_arrays
from pipeline.params import Cifar10, Digits, Directory, Params
from pipeline.stages.fetch import cifar10, folders, sources
from pipeline.support.locks import SingleInstance
from pipeline.support.paths import DOWNLOADS, IMAGES, RAW


@click.command(cls=SingleInstance)
def main() -> None:
    """Fetch the dataset and write data/raw."""
    data = Params.read().data
    match data:
        case Cifar10():
            raw = cifar10.read(data.archives, data.sha256, DOWNLOADS)
        case Digits():
            raw = sources.digits()
        case Directory():
            paths = {part: Path(folder) for part, folder in data.folders.items()}
            raw = folders.read(paths, data.image_size, data.test_fraction, IMAGES, data.unreadable, data.fit)
    facts = {"name": data.dataset, "source": data.source, "classes": raw.classes, "fit": data.fit}
    write_arrays(RAW, raw.arrays(), **facts)
    train, test = len(raw.train_labels), len(raw.test_labels)
    print(f"fetch: {data.dataset}: {train:,} training and {test:,} test images")
