"""Fetch the dataset that params.yaml names.

    python -m pipeline.fetch

Reads params.yaml (data) and the archive, scikit-learn's digits or the user's folders. Writes data/raw:
the images and labels as their source gives them, and data/download, where an archive is kept.
"""

from dataclasses import asdict
from pathlib import Path

from pipeline.data import sources
from pipeline.data.arrays import write_arrays
from pipeline.data.sources import RawDataset
from pipeline.errors import one_line_errors
from pipeline.params import Data, Params
from pipeline.paths import DOWNLOADS, RAW
from pipeline.running.lock import alone
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Fetch and write data/raw."""
    data = read_params(Params).data
    raw = asdict(fetch(data))
    write_arrays(RAW, raw, classes=raw.pop("classes"), name=data.dataset)
    counts = {part: f"{len(raw[f'{part}_labels']):,}" for part in ("train", "test")}
    print(f"fetch: {data.dataset}: {counts['train']} training and {counts['test']} test images")


def fetch(data: Data) -> RawDataset:
    """The dataset from the source that `data` names; PipelineError where it cannot be had."""
    if data.source == "digits":
        return sources.digits()
    if data.source == "directory":
        return sources.directory(Path(data.directory or ""))
    return sources.cifar10(data.archives, data.sha256 or "", DOWNLOADS)


if __name__ == "__main__":
    main()
