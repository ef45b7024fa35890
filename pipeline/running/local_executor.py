"""Runs jobs in processes of this machine."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from queue import SimpleQueue

from pipeline.running import worker
from pipeline.running.job import Job, WorkerDied

FAILED = 1  # the exit status of a worker whose job failed, and not the worker


class Pool:
    """Runs at most `workers` jobs at a time; on GPUs, one on each."""

    def __init__(self, workers: int, jobs: Sequence[Job]) -> None:
        on_gpus = any(job.recipe.device == "gpu" for job in jobs)
        # Without a GPU here, one worker refuses the recipe in one line.
        gpus: list[str | None] = [*worker.gpus()[:workers]] or [None]
        places = gpus if on_gpus else [None] * workers
        self.slots = len(places)
        self.free: SimpleQueue[str | None] = SimpleQueue()
        for place in places:
            self.free.put(place)
        self.stopped = threading.Event()

    def run(self, job: Job, show: Callable[[str], None]) -> bool:
        """Do a job in a worker of its own (see `Executor`)."""
        gpu = self.free.get()
        try:
            status = worker.run(job, show, gpu, self.stopped)
        finally:
            self.free.put(gpu)
        if status in {0, FAILED}:
            return status == 0
        if self.stopped.is_set():
            raise CancelledError
        raise WorkerDied(f"its process ended with {status}")

    def stop(self) -> None:
        """Interrupt all workers, and start no others."""
        self.stopped.set()
        worker.stop()
