"""What a cluster costs the process that drives it: jobs that do nothing, on a local Ray.

    python -m benchmarks.cluster

In a folder with prepared data. Prints, for several numbers of jobs at once, the jobs per second, the CPU
seconds and the memory of the driver, and the CPU seconds of all processes.
"""

import time
from dataclasses import replace

import pandas as pd
import psutil
from rich.console import Console

from pipeline import params
from pipeline.commands import plan
from pipeline.core.recipe import Recipe
from pipeline.core.result_keys import code_digests
from pipeline.running import job_queue
from pipeline.running.job import Job
from pipeline.running.job_queue import make_executor
from pipeline.running.view import View
from pipeline.stages.report.tables import markdown_table
from pipeline.support.errors import one_line_errors
from pipeline.support.model_files import ModelFiles, all_models

NUMBERS = (100, 300, 1000)


class Empty(Job):
    """Does nothing, on a node, with all that comes before and after."""

    def __call__(self) -> None:
        """Do nothing."""

    def result(self) -> ModelFiles:
        """A model that does not exist."""
        return self.files


@one_line_errors
def main() -> None:
    """Measure, and print a table."""
    settings = plan.read_params()
    rows = []
    for number in NUMBERS:
        rows.append(measure(number, settings))
        print(f"bench: {rows[-1]}", flush=True)
    print(markdown_table(pd.DataFrame(rows)))


def measure(number: int, settings: params.Params) -> dict[str, str]:
    """Do a number of empty jobs, one for each core at a time."""
    first, driver = all_models()[0], psutil.Process()
    job = Empty(first, Recipe.read(first.variant), code_digests(), trains=False)
    jobs = [replace(job, files=ModelFiles(first.variant, seed)) for seed in range(number)]
    before, began, everyone = sum(driver.cpu_times()[:2]), time.monotonic(), sum(psutil.cpu_times()[:3])
    with View(Console(quiet=True), number) as view:
        cluster = make_executor("ray", settings, jobs, None)
        joined = time.monotonic()
        job_queue.run(jobs, cluster, view)
    wall = time.monotonic() - joined
    return {
        "jobs": f"{number:,}",
        "start (s)": f"{joined - began:.1f}",
        "jobs a second": f"{number / wall:.0f}",
        "driver's CPU (s)": f"{sum(driver.cpu_times()[:2]) - before:.1f}",
        "driver's memory (MB)": f"{driver.memory_info().rss / 1e6:.0f}",
        "CPU of all (s)": f"{sum(psutil.cpu_times()[:3]) - everyone:.0f}",
    }


if __name__ == "__main__":
    main()
