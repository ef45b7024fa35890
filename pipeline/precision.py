"""Choose the arithmetic of trainings: what params.yaml says or, for `auto`, what this CPU is made for.

    python -m pipeline.precision

Reads params.yaml (training.precision) and the CPU's features. Writes precision.json, on which every
training depends: what the hardware chose is seen by DVC, and two results never share a cache key.
"""

import re
from pathlib import Path

from pipeline.data.arrays import write_json
from pipeline.errors import one_line_errors
from pipeline.paths import PRECISION
from pipeline.running.lock import alone
from pipeline.settings.hyperparameters import Hyperparameters
from pipeline.settings.reading import read_params

CPU = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # instructions that multiply bfloat16 matrices, as Linux names them


@one_line_errors
@alone
def main() -> None:
    """Choose, write and tell."""
    chosen = read_params(Hyperparameters).training.precision
    if chosen == "auto":
        chosen = "mixed_bfloat16" if BFLOAT16 & cpu_features() else "float32"
    write_json(PRECISION, {"precision": chosen})
    print(f"precision: {chosen}")


def cpu_features() -> set[str]:
    """The CPU's features as Linux names them; none where there is no Linux to ask."""
    flags = re.search(r"^flags\s*:(.*)$", CPU.read_text() if CPU.is_file() else "", re.MULTILINE)
    return set(flags[1].split()) if flags else set()


if __name__ == "__main__":
    main()
