"""A job that shows which GPU it gets. It imports little, because each worker imports this module anew."""

import os
import time
from pathlib import Path

from pipeline.running.job import Job
from pipeline.support.model_files import ModelFiles


class OnGpu(Job):
    """Holds its GPU for a moment, and fails if another job holds it."""

    def __call__(self) -> None:
        gpu = Path(self.code["folder"], os.environ["CUDA_VISIBLE_DEVICES"])
        gpu.touch(exist_ok=False)
        time.sleep(0.2)
        gpu.rename(gpu.with_name(f"{self.files.name} on {gpu.name}"))

    def result(self) -> ModelFiles:
        return self.files
