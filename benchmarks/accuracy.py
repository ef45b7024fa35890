"""What bfloat16 costs in accuracy: one variant with several seeds, in float32 and in bfloat16."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.whole import PARALLEL, timed

VARIANT = "vgg3"
SEEDS = (0, 1, 2)


def by_precision(folder: Path, images: Path, epochs: int, jobs: int) -> dict[str, Any]:
    """Mean and sd of the validation accuracy by precision, of trainings as `make repro` runs them."""
    found: dict[str, Any] = {"variant": VARIANT, "epochs": epochs}
    for precision in ("float32", "mixed_bfloat16"):
        here = folder / precision
        command = [*PARALLEL, str(jobs)]
        timed(here, images, epochs, command, [VARIANT], seeds=SEEDS, precision=precision)
        kept = [json.loads((here / f"models/{VARIANT}-{seed}/training.json").read_text()) for seed in SEEDS]
        values = [record["metrics"]["validation/accuracy"] for record in kept]
        found[precision] = {
            "mean": round(statistics.mean(values), 4),
            "sd": round(statistics.stdev(values), 4),
            "n": len(values),
        }
        print(f"bench: accuracy: {precision}: {found[precision]}", flush=True)
    return found
