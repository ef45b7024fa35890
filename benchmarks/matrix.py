"""How much of the machine's matrix speed an epoch reaches."""

import math
import time
from typing import Any

from benchmarks.steps import forward_passes, plain
from pipeline.params import Params

EXPLANATION = (
    " Matrix speed: the arithmetic of the layers by the wall time, of the {gflops:.0f} GFLOP/s that this "
    "machine's cores reach in TensorFlow's products of float32 matrices."
)
SIZE, TIMES = 2_048, 20  # of the matrices, and of their products


def machine_speed() -> float:
    """GFLOP/s of a product of float32 matrices on all cores, by TensorFlow: the fastest of several.

    NumPy's own library does not use all instructions of every CPU, so layers would seem faster than products.
    """
    from pipeline.core.backend import keras

    one = keras.random.uniform((SIZE, SIZE), seed=0)
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        keras.ops.matmul(one, one)
        seconds.append(time.perf_counter() - started)
    return 2 * SIZE**3 / min(seconds) / 1e9


def operations() -> dict[str, float]:
    """GFLOP of a forward pass of one image, in convolutions and dense layers, for each plain variant."""
    from pipeline.core.backend import keras
    from pipeline.stages.recipes.model_config import build

    found = {}
    for name, variant in plain(Params.read()).items():
        model = build(variant.network, [32, 32, 3], 10, "model")
        weighted = [
            layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        ]
        products = [math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1]) for layer in weighted]
        found[name] = 2 * sum(products) / 1e9
    return found


def fraction(found: dict[str, Any], variant: str, side: str) -> float:
    """The fraction of the machine's speed that a side of a variant's epoch reaches.

    Nine tenths of the images are trained on, one tenth validates.
    """
    work = found["work"][variant] * forward_passes(0.9 * found["images"], 0.1 * found["images"])
    return float(work / found["seconds"][variant][side]["wall"]["median"] / found["gflops"])
