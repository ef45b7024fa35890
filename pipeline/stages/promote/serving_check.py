"""Tries a registered model as a server would use it, before it may become champion."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import mlflow
import numpy as np

from pipeline.shared.image_decoding import encode_base64
from pipeline.support.errors import PipelineError, in_a_line, masked

Answers = Callable[[str, np.ndarray], np.ndarray]  # of a model's URI and images uint8: (n, classes)

TOLERANCE = 1e-3  # of a probability; another processor rounds in another way
CODE = """
import json, sys
sys.modules |= dict.fromkeys(("matplotlib", "sklearn"))  # Keras imports them, and nothing here needs them
import keras, mlflow.pyfunc, pandas
uri, images = json.load(sys.stdin)
answers = mlflow.pyfunc.load_model(uri).predict(pandas.DataFrame({"image": images}))
print(json.dumps([list(answer["probabilities"].values()) for answer in answers]))
"""


@contextmanager
def new_process() -> Iterator[Answers]:
    """A process that answers with one served model. It imports TensorFlow while the model is registered.

    It has none of the pipeline's modules, and so none of their layers.
    """
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "KERAS_BACKEND": "tensorflow",
        "NVIDIA_TF32_OVERRIDE": "0",  # as for the stored probabilities
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-I", "-c", CODE], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield partial(_answers, process)
        finally:
            process.kill()


def check(answers: Answers, uri: str, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise PipelineError if a served model cannot be loaded, or if a probability is not the expected one."""
    worst = np.abs(answers(uri, images) - probabilities).max()
    if not worst <= TOLERANCE:  # nor NaN
        raise PipelineError(
            f"{uri}: not promoted: its probabilities differ from the stored ones by up to {worst:.3g}; "
            f"must be at most {TOLERANCE}"
        )


def _answers(process: "subprocess.Popen[str]", uri: str, images: np.ndarray) -> np.ndarray:
    out, errors = process.communicate(json.dumps([uri, [encode_base64(image) for image in images]]))
    if process.returncode:
        found = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", errors, re.MULTILINE)
        reason = found[-1] if found else errors[-300:] or f"status {process.returncode}"
        reason = masked(in_a_line(reason))[:300]
        raise PipelineError(f"{uri}: cannot be served, so it is not promoted: {reason}")
    return np.array(json.loads(out.splitlines()[-1]))
