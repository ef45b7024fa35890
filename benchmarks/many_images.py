"""Many pictures: `classify` on a folder, beside one request at a time to the served model.

    python -m benchmarks.many_images        # some two minutes of two cores

Both answer with `vgg3`, with untrained weights, on JPEGs of 512 x 512 pixels, by turns. Writes
benchmarks/many_images.json: medians with the least, the greatest and n, and the machine.
"""

import base64
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import requests
from PIL import Image

from benchmarks.measure import machine, run, summary
from benchmarks.serving import cpu_seconds, save_both, serve
from pipeline.core.arrays import write_json
from pipeline.support.errors import one_line_errors

RESULTS = Path(__file__).with_suffix(".json")
NETWORK, IMAGES, REQUESTS, ROUNDS = "vgg3", 2_000, 300, 3


@one_line_errors
def main() -> None:
    """Measure both ways by turns, and write what was found."""
    wall: dict[str, list[float]] = {"classify": [], "one request at a time": []}
    cpu: dict[str, list[float]] = {name: [] for name in wall}
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_both(NETWORK, folder)
        photos = write_photos(folder / "photos")
        command = [sys.executable, "-m", "pipeline", "classify", str(folder / "photos"), "--csv"]
        with serve(folder, "served") as (address, processes):
            for _ in range(ROUNDS):
                took = run([*command, f"--model={folder / 'served'}"], Path.cwd(), {})
                wall["classify"].append(IMAGES / took["wall"])
                cpu["classify"].append(1e3 * took["cpu"] / IMAGES)
                started, before = time.perf_counter(), cpu_seconds(processes)
                for photo in photos[:REQUESTS]:
                    ask(address, photo)
                wall["one request at a time"].append(REQUESTS / (time.perf_counter() - started))
                cpu["one request at a time"].append(1e3 * (cpu_seconds(processes) - before) / REQUESTS)
    ways = {
        way: {"images_per_second": summary(wall[way]), "cpu_ms_per_image": summary(cpu[way])} for way in wall
    }
    write_json(RESULTS, {"machine": machine(), "images": IMAGES, "requests": REQUESTS, "ways": ways})
    print(RESULTS.read_text())


def write_photos(folder: Path) -> list[Path]:
    """JPEGs of noise with some structure, as large as those of a page."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(IMAGES)]
    for path in paths:
        small = Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(path)
    return paths


def ask(address: str, photo: Path) -> None:
    """Let the server classify a file; an answer that is no 200 raises."""
    row = {"image": base64.b64encode(photo.read_bytes()).decode()}
    answer = requests.post(address, json={"dataframe_records": [row]}, timeout=60)
    answer.raise_for_status()


if __name__ == "__main__":
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    main()
