"""Keras on TensorFlow, for every module that needs them: `from pipeline.core.backend import keras, tf`.

Keras chooses its backend at import, TensorFlow leaves oneDNN off on CPUs without AVX-512, its start-up writes
lines that no log level removes, and Keras imports optional libraries. On a GPU it multiplies float32 in TF32,
which has three digits. This module sets the backend, turns on oneDNN and prevents the rest, before anything
imports them.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
if platform.machine() in {"x86_64", "AMD64"}:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard what C++ code writes to file descriptor 2; Python's exceptions are not affected."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@contextmanager
def _without_optional_imports() -> Iterator[None]:
    """Hide scikit-learn and Matplotlib from Keras, which does not need them: saves a CPU second per stage."""
    absent: dict[str, Any] = {name: None for name in ("matplotlib", "sklearn") if name not in sys.modules}
    sys.modules |= absent  # None: importing it raises ImportError
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _without_stderr(), _without_optional_imports():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()  # writes its own lines, at the first call
    tf.get_logger().setLevel("ERROR")  # it warns of every few models that one process traces

__all__ = ["keras", "tf"]
