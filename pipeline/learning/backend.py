"""Keras on TensorFlow, for every module that needs them: `from pipeline.learning.backend import keras, tf`.

Keras reads its backend at import, from ~/.keras unless told, TensorFlow's start-up writes lines that
no log level removes, and Keras imports whatever it could plot with or wrap. All are seen to here, once,
before anything else imports them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Turn away what C++ code writes to file descriptor 2; Python's exceptions still come through."""
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
    """Let Keras find neither scikit-learn nor Matplotlib, which it can do without: a CPU second a stage."""
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

__all__ = ["keras", "tf"]
