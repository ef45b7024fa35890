"""Keras on TensorFlow, for every module that needs them: `from pipeline.core.backend import keras, tf`.

Both read settings that change the weights of a training: from the environment, and Keras also from
~/.keras/keras.json. This module sets or removes them before anything imports the two, so that a result
depends only on what its key covers. oneDNN is on, which TensorFlow leaves off on CPUs without AVX-512, and
TF32 is off, in which a GPU would multiply float32 with three digits.

It also discards lines of TensorFlow's start-up that no log level removes, and hides optional libraries.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The variables of Keras, TensorFlow and their libraries, which are ignored, and those that change no result.
IGNORED = ("KERAS_", "TF_", "TF2_", "XLA_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_")
HARMLESS = ("TF_CPP_", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "TF_NUM_INTEROP_", "TF_NUM_INTRAOP_")

for _name in [name for name in os.environ if name.startswith(IGNORED) and not name.startswith(HARMLESS)]:
    del os.environ[_name]
os.environ |= {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # holds no keras.json, and none is written
    "NVIDIA_TF32_OVERRIDE": "0",
}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if platform.machine() in {"x86_64", "AMD64"}:
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


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

# Again, if something imported Keras before.
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")

__all__ = ["keras", "tf"]
