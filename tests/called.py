"""The pipeline's commands, called in this process: quicker, where the process does not matter."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.core import hardware
from pipeline.core.backend import keras
from pipeline.stages.promote import packaging, serving_check
from pipeline.stages.train import training
from pipeline.support.errors import JOB


@dataclass(frozen=True)
class Called:
    """What a command printed, and its exit status or error; None if it ended well."""

    out: str
    err: str
    error: Any

    @property
    def refusal(self) -> str:
        """The one line that it was refused with, without "error: "."""
        assert str(self.error).startswith("error: "), self
        assert "\n" not in self.error
        return str(self.error.removeprefix("error: "))


def seed_only(seed: int, *_: Any) -> None:
    """`make_deterministic` in a process in which TensorFlow runs already, so its threads stay."""
    keras.utils.set_random_seed(seed)


def call(folder: Path, name: str, *arguments: str, **environment: str) -> Called:
    """Call the main function of `python -m pipeline NAME` in this process, in a folder with its own store.

    Of MLflow's settings it has only those of the `environment`.
    """
    ours = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"} | environment
    error = None
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
            patch.delenv(key)
        patch.setenv(JOB, "")  # `--job` sets it
        for key, value in ours.items():
            patch.setenv(key, value)
        for module in (training, hardware):
            patch.setattr(module, "make_deterministic", seed_only)
        patch.chdir(folder)
        try:
            main([name, *arguments])
        except SystemExit as ended:
            error = ended.code or None
    return Called(out.getvalue(), err.getvalue(), error)


@contextmanager
def this_process() -> Iterator[serving_check.Answers]:
    """As `trial.new_process`, for tests in which the process does not matter."""

    def answers(uri: str, images: np.ndarray) -> np.ndarray:
        rows: Any = pd.concat([packaging.example_request(image) for image in images])
        found: Any = mlflow.pyfunc.load_model(uri).predict(rows)
        return np.array([list(answer["probabilities"].values()) for answer in found])

    yield answers
