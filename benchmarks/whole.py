"""The whole job: the documents' variants, epochs and images cut short, from the images to the report.

Three ways: the documents' notebooks one after another, which train and score and no more; `dvc repro` of an
older commit; and `python -m pipeline repro`, which is `make repro`, with as many jobs as cores.
"""

import itertools
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import job
from benchmarks.measure import run
from pipeline.params import Params
from pipeline.support.errors import PipelineError

PARALLEL = [sys.executable, "-m", "pipeline", "repro", "--jobs"]
FOUR_VARIANTS = ["baseline", "deep_dropout", "model_s", "vgg3"]
FEW, MANY = 2, 10  # trainings


def compare(
    folder: Path, images: Path, data: Path, epochs: int, jobs: int, before: str | None
) -> dict[str, Any]:
    """Wall and CPU seconds of the three ways, once each; variants and epochs are the same for all."""
    found: dict[str, Any] = {"epochs": epochs, "jobs": jobs}
    names = variant_names()
    found["notebooks"] = notebooks(data, epochs)
    if before:
        checkout = folder / "checkout"
        run(["git", "worktree", "add", "--detach", str(checkout), before], Path.cwd(), {})
        for name in ("data/images/.gitkeep", ".dvc/plots/none"):  # which older commits lack
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).touch()
        try:
            serial = timed(folder / "before", images, epochs, ["dvc", "repro"], names, checkout=checkout)
        finally:
            run(["git", "worktree", "remove", "--force", str(checkout)], Path.cwd(), {})
        found |= {"before": serial, "commit": before}
    return found | {"parallel": timed(folder / "parallel", images, epochs, [*PARALLEL, str(jobs)], names)}


def further(folder: Path, images: Path, jobs: int) -> dict[str, Any]:
    """What one more training costs beside its epochs, from recipe to report: CPU seconds, by the difference
    of a job with many trainings of `shallow` and one with few, one epoch each."""
    beside = {}
    for count in (FEW, MANY):
        project = folder / f"trainings-{count}"
        command = [*PARALLEL, str(jobs)]
        seconds = timed(project, images, 1, command, ["shallow"], seeds=range(count))["cpu"]
        with closing(sqlite3.connect(project / "mlflow.db")) as store:
            query = "select sum(value) from latest_metrics where key = 'cpu_seconds'"
            beside[count] = seconds - store.execute(query).fetchone()[0]
    return {"trainings": [FEW, MANY], "cpu": round((beside[MANY] - beside[FEW]) / (MANY - FEW), 2)}


def variant_names() -> list[str]:
    """The variants of the documents, which notebooks can train; what is fine-tuned comes last."""
    blocks = Params.read().blocks.items()
    return [key.rpartition(".")[2] for key, variant in blocks if variant.whitening is None]


def notebooks(data: Path, epochs: int) -> dict[str, float]:
    """The documents' variants, one process after another."""
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
    print(f"bench: job {folder.name}: {seconds}", flush=True)
    return seconds


def by_threads(folder: Path, images: Path, epochs: int, cores: int) -> list[dict[str, float]]:
    """Seconds of a job of two small and two large variants, by the threads of each and the jobs at a time."""
    found = []
    for threads, jobs in itertools.product((1, cores), repeat=2):
        here, command = folder / f"{threads}-{jobs}", [*PARALLEL, str(jobs)]
        seconds = timed(here, images, epochs, command, FOUR_VARIANTS, threads=threads)
        found.append({"threads": threads, "jobs": jobs, **seconds})
    return found


def write_data(data: Path, prepared: Path, counts: dict[str, int | None]) -> None:
    """Write the arrays that trainings read: of each part that a job prepared so many images; None: all."""
    for part, count in counts.items():
        (data / part).mkdir(parents=True)
        for name in ("images", "labels"):
            array = np.load(prepared / part / f"{name}.npy", mmap_mode="r")
            if count is not None and len(array) < count:
                raise PipelineError(f"{prepared / part}: must have {count:,} images; has {len(array):,}")
            np.save(data / part / f"{name}.npy", array[:count])
