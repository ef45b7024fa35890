"""What serving costs: model time, a batch through MLflow, and requests a second over HTTP.

    sudo apt-get install apache2-utils      # the load tool, ab
    python -m benchmarks.serving            # some five minutes of two cores

Compares, for the networks of NETWORKS with untrained weights, the served model with what stands beside it:
a bare `tf.function` of the same network, and MLflow's stock Keras flavour served the same way, by one
worker of `mlflow models serve`. What is compared runs by turns, so that a busy machine slows both.
Writes benchmarks/serving.json: medians with n and quartiles, CPU seconds beside wall seconds, the machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from benchmarks.measure import machine
from pipeline.core import keras_file
from pipeline.core.backend import keras, tf
from pipeline.core.variant import Network
from pipeline.stages.promote import packaging
from pipeline.stages.recipes import model_config
from pipeline.support.errors import PipelineError, one_line_errors
from tests.servers import answers, free_port, server

RESULTS = Path(__file__).with_suffix(".json")
NETWORKS = ("vgg3", "model_s")  # the reference, and the best of the whole run
CLASSES = [f"class{number}" for number in range(10)]
IMAGES = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
ROUNDS = 7


@one_line_errors
def main() -> None:
    """Measure every network, and write and print what was found."""
    if not shutil.which("ab"):
        raise PipelineError("ab: not installed: `sudo apt-get install apache2-utils`")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    found: dict[str, Any] = {"machine": machine(), "rounds": ROUNDS, "networks": {}}
    for network in NETWORKS:
        with TemporaryDirectory() as folder:
            model = save_both(network, Path(folder))
            found["networks"][network] = {
                "one_image_ms": one_image(model, Path(folder)),
                "batch_of_256": batch(model, Path(folder)),
                "http": http(Path(folder)),
            }
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        print(network, json.dumps(found["networks"][network], indent=2), flush=True)


def save_both(network: str, folder: Path) -> keras.Model:
    """A network saved as the served model and as MLflow's stock Keras flavour."""
    keras.utils.set_random_seed(0)
    model = model_config.build(Network(name=network), list(IMAGES.shape[1:]), len(CLASSES), network)
    keras_file.save(model, folder / "model.keras")
    described = packaging.described(
        folder / "model.keras", CLASSES, IMAGES[0], packaging.Serving(len(IMAGES))
    )
    mlflow.pyfunc.save_model(path=folder / "served", **described)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *IMAGES.shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(CLASSES)))]),
    )
    mlflow.keras.save_model(model, str(folder / "stock"), signature=signature, pip_requirements=["mlflow"])
    return model


def one_image(model: keras.Model, folder: Path) -> dict[str, Any]:
    """Milliseconds of model time of one image, and of the same through MLflow."""
    served = mlflow.pyfunc.load_model(str(folder / "served"))
    classifier = served.unwrap_python_model()
    image, frame = tf.constant(IMAGES[:1]), pd.DataFrame({"pixels": [IMAGES[0]]})
    encoded = packaging.example_request(IMAGES[0])
    return compared(
        {
            "served model, forward pass": lambda: classifier.forward(image),
            "pyfunc.predict, pixels": lambda: served.predict(frame),
            "pyfunc.predict, image": lambda: served.predict(encoded),
            "keras, model.predict": lambda: model.predict(IMAGES[:1], verbose=0),
        },
        calls=30,
        unit=1e-3,
    )


def batch(model: keras.Model, folder: Path) -> dict[str, Any]:
    """Images a second in batches of 256: decoded pixels through MLflow, beside the bare network."""
    served = mlflow.pyfunc.load_model(str(folder / "served"))
    bare = tf.function(lambda batch: model(batch, training=False))
    arrays = pd.DataFrame({"pixels": list(IMAGES)})
    lists = pd.DataFrame({"pixels": [image.tolist() for image in IMAGES]})
    seconds = compared(
        {
            "bare tf.function": lambda: bare(tf.constant(IMAGES)).numpy(),
            "pyfunc.predict, arrays": lambda: served.predict(arrays),
            "pyfunc.predict, lists": lambda: served.predict(lists),
        },
        calls=5,
        unit=1,
    )
    base = seconds["bare tf.function"]["median"]
    for name in seconds:
        seconds[name]["images_per_second"] = round(len(IMAGES) / seconds[name]["median"], 1)
        seconds[name]["of_bare"] = round(base / seconds[name]["median"], 3)
    return seconds


def http(folder: Path) -> dict[str, Any]:
    """Requests a second of one image, by `ab`, for one and four clients at a time."""
    bodies = {
        "served, image": (
            "served",
            {"dataframe_records": packaging.example_request(IMAGES[0]).to_dict("records")},
        ),
        "served, pixels": ("served", {"dataframe_records": [{"pixels": IMAGES[0].tolist()}]}),
        "stock Keras flavour": ("stock", {"instances": IMAGES[:1].tolist()}),
    }
    with ExitStack() as stack:
        running = {name: stack.enter_context(serve(folder, name)) for name in ("served", "stock")}
        found: dict[str, Any] = {}
        for clients in (1, 4):
            rates: dict[str, list[tuple[float, float]]] = {name: [] for name in bodies}
            for turn in range(ROUNDS + 1):
                for name, (which, body) in bodies.items():
                    (folder / "body.json").write_text(json.dumps(body))
                    rate = load(
                        *running[which], folder / "body.json", clients, 200 if which == "served" else 60
                    )
                    if turn:  # the first warms up
                        rates[name].append(rate)
            found[f"{clients} at a time"] = {name: http_summary(values) for name, values in rates.items()}
            stock = found[f"{clients} at a time"]["stock Keras flavour"]["requests_per_second"]
            for values in found[f"{clients} at a time"].values():
                values["times_stock"] = round(values["requests_per_second"] / stock, 2)
    return found


@contextmanager
def serve(folder: Path, name: str) -> Iterator[tuple[str, list[psutil.Process]]]:
    """The address of a served model, and its server's processes."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", name, "--env-manager", "local", "-p", str(port)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    address = f"http://127.0.0.1:{port}"
    with server(command, folder, environment, folder / f"{name}.log", lambda: answers(f"{address}/ping")):
        yield f"{address}/invocations", [p for p in psutil.Process().children(True) if p.is_running()]


def load(
    address: str, processes: list[psutil.Process], body: Path, clients: int, requests: int
) -> tuple[float, float]:
    """Requests a second, and CPU milliseconds of the server a request; an answer that is no 200 raises."""
    before = cpu_seconds(processes)
    command = f"ab -q -k -n {requests} -c {clients} -T application/json -p {body} {address}"
    printed = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in printed or not re.search(r"Failed requests: +0\b|Length: [1-9]", printed):
        raise RuntimeError(printed)
    rate = re.search(r"Requests per second: +([\d.]+)", printed)
    assert rate is not None
    return float(rate[1]), (cpu_seconds(processes) - before) / requests * 1e3


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """What processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running())


def http_summary(values: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of (requests a second, CPU milliseconds of the server a request)."""
    rates, cpu = zip(*values, strict=True)
    low, middle, high = np.percentile(rates, [25, 50, 75])
    return {
        "requests_per_second": round(float(middle), 1),
        "quartiles": [round(float(low), 1), round(float(high), 1)],
        "server_cpu_ms_per_request": round(float(np.median(cpu)), 2),
        "n": len(rates),
    }


def compared(calls_of: dict[str, Callable[[], Any]], calls: int, unit: float) -> dict[str, Any]:
    """Wall and CPU time of a call of each, in `unit` seconds, by turns, after a warm-up."""
    wall: dict[str, list[float]] = {name: [] for name in calls_of}
    cpu: dict[str, list[float]] = {name: [] for name in calls_of}
    for call in calls_of.values():
        for _ in range(3):
            call()
    for _ in range(ROUNDS):
        for name, call in calls_of.items():
            started = time.process_time()
            for _ in range(calls):
                began = time.perf_counter()
                call()
                wall[name].append((time.perf_counter() - began) / unit)
            cpu[name].append((time.process_time() - started) / calls / unit)
    return {
        name: {
            "median": round(float(np.median(values)), 4),
            "quartiles": [round(float(q), 4) for q in np.percentile(values, [25, 75])],
            "cpu": round(float(np.median(cpu[name])), 4),
            "n": len(values),
        }
        for name, values in wall.items()
    }


if __name__ == "__main__":
    main()
