"""Clocks, summaries and the machine, for every benchmark."""

import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from pipeline.support.errors import PipelineError, in_a_line

RESULTS = Path("benchmarks/results.json")


def run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Wall and CPU seconds of a command and of all that it started and waited for."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        reason = in_a_line((done.stderr or done.stdout)[-300:])
        raise PipelineError(f"{' '.join(command)}: exit status {done.returncode}: {reason}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 3), "cpu": round(cpu, 3)}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The median, with the least, the greatest and n, since a median alone hides the noise."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on, and how busy the machine was when they were begun."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("tensorflow", "keras", "mlflow", "dvc")},
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    """The processor's name; on Linux with family and model, since a name may cover several generations."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor()
    first = path.read_text().partition("\n\n")[0]
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    name = facts.get("model name", platform.processor())
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name
