"""Measure, and write what was measured.

    python -m benchmarks [--full] [--before COMMIT] [PART ...]

Parts: steps, start-up, growth; and with --full: whole, threads, bfloat16, accuracy. With --before,
`whole` runs the serial `dvc repro` of an older commit, too.
Reads data/raw and data/prepared (`dvc repro prepare` makes them). Writes benchmarks/results.json, of
which other parts are kept, and from it results.md and growth.png.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import accuracy, growth, job, matrix, report, start_up, steps, whole
from benchmarks.measure import RESULTS, machine, run
from benchmarks.steps import BFLOAT16, FLOAT32
from pipeline.core.arrays import write_json
from pipeline.params import Params
from pipeline.support.errors import one_line_errors
from pipeline.support.paths import PREPARED

IMAGES = 5_000
EPOCHS = 4  # of each variant, by whole and threads
LEARNT_EPOCHS = 12  # by accuracy


@one_line_errors
def main() -> None:
    """Measure the chosen parts, one after another."""
    parser = argparse.ArgumentParser(description="Measure the pipeline's speed.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: the short ones"
    )
    parser.add_argument("--full", action="store_true", help="the long parts, too")
    parser.add_argument("--before", metavar="COMMIT", help="an older commit that `whole` compares with")
    arguments = parser.parse_args()
    if wrong := set(arguments.parts) - set(PARTS):
        parser.error(f"PART: allowed: {', '.join(PARTS)}; received {', '.join(sorted(wrong))}")
    parts = arguments.parts or [part for part in PARTS if arguments.full or part not in LONG]
    with TemporaryDirectory() as name:
        setting = Setting(Path(name), arguments.before)
        for part in parts:
            described = machine()
            results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
            write_json(RESULTS, results | {part: {"machine": described} | PARTS[part](setting)})
            report.write(json.loads(RESULTS.read_text()), RESULTS.parent)


class Setting:
    """A folder to work in, with a few of the images, and what a job prepared of them, made once."""

    def __init__(self, folder: Path, before: str | None) -> None:
        self.folder, self.before = folder, before
        self.images = job.write_images(folder / "images", IMAGES)
        prepared = job.make(folder / "prepared", self.images, epochs=1)
        run(["dvc", "repro", "prepare"], prepared, {})
        self.data = folder / "data"
        whole.write_data(self.data, prepared / PREPARED, dict.fromkeys(("train", "validation", "test")))
        self.cores = os.cpu_count() or 1

    @cached_property
    def small_job(self) -> Path:
        """A finished job of two small variants."""
        folder = self.folder / "small"
        whole.timed(folder, self.images, 1, ["dvc", "repro"], ["shallow", "translate"])
        return folder


def compare_steps(setting: Setting) -> dict[str, Any]:
    """Notebook against pipeline, an epoch."""
    all_cores = {"threads": setting.cores, "precision": "float32"}
    sides: dict[str, dict[str, Any]] = {"notebook": {}, "pipeline": all_cores}
    speed, work = matrix.machine_speed(), matrix.operations()
    seconds = steps.compare(setting.data, steps.plain(Params.read()), sides)
    return {"images": IMAGES, "gflops": speed, "work": work, "seconds": seconds}


def compare_precisions(setting: Setting) -> dict[str, Any]:
    """float32 against bfloat16, an epoch."""
    sides = {"float32": FLOAT32, "bfloat16": BFLOAT16}
    return {"images": IMAGES, "seconds": steps.compare(setting.data, steps.distinct(Params.read()), sides)}


def compare_whole(setting: Setting) -> dict[str, Any]:
    """The whole job three ways, and the cost of one more training."""
    folder, images, jobs = setting.folder / "whole", setting.images, setting.cores
    found = whole.compare(folder, images, setting.data, EPOCHS, jobs, setting.before)
    return {"images": IMAGES} | found | {"further": whole.further(folder, images, jobs)}


def compare_threads(setting: Setting) -> dict[str, Any]:
    """A smaller job by threads and jobs."""
    ways = whole.by_threads(setting.folder / "threads", setting.images, EPOCHS, setting.cores)
    return {"images": IMAGES, "epochs": EPOCHS, "variants": whole.FOUR_VARIANTS, "ways": ways}


def compare_accuracies(setting: Setting) -> dict[str, Any]:
    """What bfloat16 costs in accuracy."""
    folder = setting.folder / "accuracy"
    return {"images": IMAGES} | accuracy.by_precision(folder, setting.images, LEARNT_EPOCHS, setting.cores)


def measure_start_up(setting: Setting) -> dict[str, Any]:
    """Stages' starts, and DVC with nothing to do."""
    finished = setting.small_job
    trivial = setting.folder / "trivial"
    return {
        "stages": start_up.measure(finished, 5),
        "nothing_to_do": start_up.nothing_to_do(finished, trivial, 5),
    }


def measure_growth(setting: Setting) -> dict[str, Any]:
    """By images and by runs."""
    images = growth.by_images(setting.folder, PREPARED, [5_000, 15_000, 45_000], 2)
    return {"images": images, "runs": growth.by_runs(setting.small_job, [10, 1_000, 10_000], 3)}


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "steps": compare_steps,
    "start-up": measure_start_up,
    "growth": measure_growth,
    "whole": compare_whole,
    "threads": compare_threads,
    "bfloat16": compare_precisions,
    "accuracy": compare_accuracies,
}
LONG = {"whole", "threads", "bfloat16", "accuracy"}

if __name__ == "__main__":
    main()
