"""The hardware that models run on: threads, device, and the precision that suits it."""

from pathlib import Path

from pipeline.core.backend import keras, tf

CPU = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # instructions that multiply bfloat16 matrices, as Linux names them
AMPERE = (8, 0)  # the compute capability of the first GPUs that multiply bfloat16 matrices


def make_deterministic(seed: int, threads: int) -> None:
    """Seed Python, NumPy and TensorFlow, before TensorFlow does any work.

    Also fix the number of threads on a CPU, and choose deterministic operations on a GPU.
    """
    keras.utils.set_random_seed(seed)
    if device() == "gpu":
        tf.config.experimental.enable_op_determinism()
        return
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def device() -> str:
    """`gpu` if TensorFlow sees one, else `cpu`."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def resolve_precision(setting: str) -> str:
    """The Keras dtype policy for `training.precision`: `auto` is bfloat16 on a CPU or GPU made for it."""
    if setting != "auto":
        return setting
    if device() == "gpu":
        gpu = tf.config.list_physical_devices("GPU")[0]
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= AMPERE else "float32"
    features = CPU.read_text().split() if CPU.is_file() else []  # other systems than Linux have no such file
    return "mixed_bfloat16" if BFLOAT16.intersection(features) else "float32"
