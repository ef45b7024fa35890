"""`mlflow models serve`, as it is started: what it answers to good requests, and to bad ones."""

import base64
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from pipeline.champion import serving
from pipeline.data import images
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from tests.conftest import BIN
from tests.keras_models import network_model
from tests.servers import answers, free_port, server
from tests.test_images import file as file_of

CLASSES = ["cat", "dog", "frog"]
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
IMAGE = images.encode_base64(PIXELS)
GOOD = {"image": IMAGE}
BATCH_LIMIT = 16


@dataclass(frozen=True)
class Served:
    """A running server, and the model that it serves."""

    address: str
    folder: Path

    def post(self, content: Any) -> requests.Response:
        headers, body = {"Content-Type": "application/json"}, json.dumps(content)  # NaN as it is
        return requests.post(f"{self.address}/invocations", data=body, headers=headers, timeout=290)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker, in a folder without the pipeline, that unpickles nothing."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    keras.utils.set_random_seed(0)
    model_file.save(network_model("translate", len(CLASSES)), folder / "model.keras")
    described = serving.described(folder / "model.keras", CLASSES, PIXELS, BATCH_LIMIT)
    mlflow.pyfunc.save_model(path=folder / "model", **described)
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "300",  # for a busy machine
    }
    command = f"mlflow models serve -m model --env-manager local -p {port}"
    address = f"http://127.0.0.1:{port}"
    with server(command.split(), folder, environment, folder / "log", lambda: answers(f"{address}/ping")):
        yield Served(address, folder)


@pytest.fixture(autouse=True)
def worker(served: Served) -> Iterator[None]:
    """Whatever a test sent, the same processes go on and answer as before."""
    before = [socket.pid for socket in listening(served)]
    yield
    answer = served.post({"dataframe_records": [GOOD]})
    assert answer.status_code == 200, answer.text
    assert [socket.pid for socket in listening(served)] == before


def listening(served: Served) -> list[Any]:
    """The sockets that listen on the server's port, each with its address and its process."""
    port = int(served.address.rsplit(":", 1)[1])
    return [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]


def refusal(served: Served, content: Any) -> str:
    """What a request is refused with: status 400, one line, without a stack trace and without the request."""
    answer = served.post(content)
    assert answer.status_code == 400, answer.text[:1000]
    error: dict[str, str] = answer.json()
    assert error["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "stack_trace" not in error
    for part in ("Traceback", "\n", "Failed to predict", IMAGE[:30]):
        assert part not in error["message"]
    return error["message"]


ONE_OF = "exactly one of image and pixels is allowed; received"
ROWS = f"rows with image or pixels: 1 to {BATCH_LIMIT} are allowed in a request; received"
INTEGERS = "32 x 32 x 3 integers from 0 to 255 are allowed; received"
BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"image": "%%%"}, "image: base64 is allowed; received 3 characters of another kind"),
    ({"image": 7}, "image: a PNG, JPEG or WebP in base64 is allowed; received int"),
    ({"image": IMAGE, "pixels": PIXELS.tolist()}, f"{ONE_OF} both"),
    ({"image": None, "pixels": None}, f"{ONE_OF} neither"),
    ({"pixels": float("nan")}, f"{ONE_OF} neither"),
    ({"pixels": (PIXELS / 255).tolist()}, f"pixels: {INTEGERS} floats (32 x 32 x 3)"),
    ({"pixels": [*PIXELS[:31].tolist(), [[1, 2, 3]]]}, f"pixels: {INTEGERS} lists of different"),
    ({"pixels": "cat.png"}, f"pixels: {INTEGERS} text (one value)"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_refused_with_its_number_and_what_is_wrong(
    served: Served, row: dict[str, Any], reason: str
) -> None:
    """Behind a good row, and alone. `test_served_model` has all the reasons."""
    assert refusal(served, {"dataframe_records": [GOOD, row]}).startswith(f"row 1: {reason}")
    assert refusal(served, {"dataframe_records": [row]}).startswith(f"row 0: {reason}")


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_records": []},
        {"dataframe_records": [{}]},
        {"dataframe_split": {"columns": ["image"], "data": []}},
        {"dataframe_split": {"data": []}},
        {"inputs": []},
    ],
)
def test_an_empty_batch_is_refused(served: Served, content: Any) -> None:
    assert refusal(served, content) == f"{ROWS} 0"


def test_large_images_at_the_same_time_take_the_memory_of_one(served: Served) -> None:
    """40 megapixels in 1,600 bytes, of which each copy takes 160 MB."""
    large = file_of(Image.new("RGB", (8_000, 5_000)), "WEBP", lossless=True)
    content = {"dataframe_records": [{"image": base64.b64encode(large).decode()}]}
    assert served.post(content).ok
    before = peak_memory(served)
    with ThreadPoolExecutor(6) as pool:
        assert all(answer.ok for answer in pool.map(served.post, [content] * 6))
    assert peak_memory(served) - before < 300 * 2**20


def peak_memory(served: Served) -> int:
    """The most memory that the server's process has used so far, in bytes."""
    status = Path(f"/proc/{listening(served)[0].pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def test_ten_thousand_images_at_once_are_refused(served: Served) -> None:
    assert refusal(served, {"dataframe_records": [GOOD] * 10_000}) == f"{ROWS} 10000"


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_records": [GOOD]},
        {"dataframe_split": {"columns": ["image"], "data": [[IMAGE]]}},
        {"instances": [GOOD]},
        {"inputs": [GOOD]},
        {"inputs": {"image": [IMAGE]}},
        {"dataframe_records": [{"pixels": PIXELS.tolist()}]},
        {"dataframe_split": {"columns": ["pixels"], "data": [[PIXELS.tolist()]]}},
        {"instances": [{"pixels": PIXELS.tolist()}]},
        {"inputs": {"pixels": [PIXELS.tolist()]}},
    ],
    ids=lambda content: json.dumps(content)[:40],
)
def test_every_format_of_mlflow_is_answered_alike(served: Served, content: Any) -> None:
    expected = served.post({"dataframe_records": [GOOD]}).json()["predictions"]
    assert served.post(content).json()["predictions"] == expected


def test_top_k_comes_through(served: Served) -> None:
    answer = served.post({"dataframe_records": [GOOD], "params": {"top_k": 2}}).json()["predictions"][0]
    assert len(answer["probabilities"]) == 2
    refused = refusal(served, {"dataframe_records": [GOOD], "params": {"top_k": 4}})
    assert refused == "params: top_k: 1 to 3 are allowed; received 4"


def test_requests_at_the_same_time_get_their_own_answers(served: Served) -> None:
    shades = [np.full((32, 32, 3), shade, np.uint8) for shade in range(0, 250, 10)]
    rows = [{"dataframe_records": [{"image": images.encode_base64(shade)}]} for shade in shades]
    alone = [served.post(row).json() for row in rows]
    with ThreadPoolExecutor(8) as pool:
        together = [answer.json() for answer in pool.map(served.post, rows)]
    assert together == alone


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        (None, b"{}", 500),
        ("text/plain", b"{}", 415),
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b'{"images": []}', 400),
    ],
)
def test_what_the_stock_server_answers_before_predict_is_as_documented(
    served: Served, content_type: str | None, content: bytes, status: int
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = requests.post(f"{served.address}/invocations", data=content, headers=headers, timeout=60)
    assert answer.status_code == status


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    assert [socket.laddr.ip for socket in listening(served)] == ["127.0.0.1"]
