"""The whole job: all variants, with epochs and images cut short, from the images to the report.

Three ways: the documents' notebooks one after another, which train and score and no more; `dvc repro`;
and `python -m pipeline.repro`, which is `make repro`, with as many jobs as cores.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import job
from benchmarks.measure import run
from pipeline.params import Params
from pipeline.shared.load_params import load_params

PARALLEL = [sys.executable, "-m", "pipeline.repro", "--jobs"]
FOUR_VARIANTS = ["baseline", "deep_dropout", "model_s", "vgg3"]


def compare(folder: Path, images: Path, data: Path, epochs: int, jobs: int) -> dict[str, Any]:
    """Wall and CPU seconds of the notebooks and of the job in parallel, once; variants and epochs are the
    same for both."""
    found: dict[str, Any] = {"epochs": epochs, "jobs": jobs}
    found["parallel"] = timed(folder / "parallel", images, epochs, [*PARALLEL, str(jobs)])
    found["notebooks"] = notebooks(data, epochs)
    return found


def compare_all(folder: Path, images: Path, data: Path, epochs: int, jobs: int) -> dict[str, Any]:
    """The same with `dvc repro`, and whether it ends with the same models."""
    found = compare(folder, images, data, epochs, jobs)
    found["serial"] = timed(folder / "serial", images, epochs, ["dvc", "repro"])
    return found | {"same_models": same_models(folder / "serial", folder / "parallel")}


def variant_names() -> list[str]:
    """All variants of params.yaml; what is fine-tuned comes last."""
    return [key.rpartition(".")[2] for key in load_params(Params).blocks]


def notebooks(data: Path, epochs: int) -> dict[str, float]:
    """All variants, one process after another."""
    total = {"wall": 0.0, "cpu": 0.0}
    for name in variant_names():
        command = [sys.executable, "-m", "benchmarks.notebook", name, str(epochs), str(data)]
        seconds = run(command, Path.cwd(), {})
        total = {clock: round(total[clock] + seconds[clock], 3) for clock in total}
    print(f"bench: whole: notebooks: {total}", flush=True)
    return total


def timed(
    folder: Path,
    images: Path,
    epochs: int,
    command: list[str],
    variants: list[str] | None = None,
    **more: Any,
) -> dict[str, float]:
    """Seconds of one job from nothing to its report; `more` as of `job.make`."""
    job.make(folder, images, epochs, variants, **more)
    seconds = run(command, folder, {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"})
    print(f"bench: whole: {folder.name}: {seconds}", flush=True)
    return seconds


def by_variants(
    folder: Path, images: Path, counts: list[int], epochs: int, jobs: int
) -> dict[str, dict[str, float]]:
    """Seconds of jobs with more and more variants."""
    names, command = variant_names(), [*PARALLEL, str(jobs)]
    return {str(n): timed(folder / f"variants-{n}", images, epochs, command, names[:n]) for n in counts}


def by_threads(folder: Path, images: Path, epochs: int, cores: int) -> list[dict[str, float]]:
    """Seconds of a job of two small and two large variants, by the threads of each and the jobs at a time."""
    found = []
    for threads, jobs in itertools.product((1, cores), repeat=2):
        here, command = folder / f"{threads}-{jobs}", [*PARALLEL, str(jobs)]
        seconds = timed(here, images, epochs, command, FOUR_VARIANTS, threads=threads)
        found.append({"threads": threads, "jobs": jobs, **seconds})
    return found


def same_models(one: Path, other: Path) -> bool:
    """Whether two jobs ended with the same models, bit for bit."""
    names = sorted(path.parent.name for path in one.glob("models/*/model.keras"))
    contents = [
        [(folder / "models" / name / "model.keras").read_bytes() for name in names] for folder in (one, other)
    ]
    return bool(names) and contents[0] == contents[1]


def write_data(data: Path, prepared: Path, counts: dict[str, int | None]) -> None:
    """The arrays that trainings read: of each part the first `counts` that a job prepared, None: all."""
    for part, count in counts.items():
        (data / part).mkdir(parents=True)
        for name in ("images", "labels"):
            array = np.load(prepared / part / f"{name}.npy", mmap_mode="r")
            np.save(data / part / f"{name}.npy", array[:count])
