"""`mlflow models serve`, as it is started: what it answers to good requests, and to bad ones."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from pipeline.shared import image_decoding, metrics
from tests.conftest import Clone, Evaluated
from tests.shared.test_image_decoding import file as file_of

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
IMAGE = image_decoding.encode_base64(PIXELS)
GOOD = {"image": IMAGE}
BATCH_LIMIT = 256


@dataclass(frozen=True)
class Served:
    """The running server of the quickstart's champion, with one worker."""

    address: str

    def post(self, content: Any) -> requests.Response:
        headers, body = {"Content-Type": "application/json"}, json.dumps(content)  # NaN as it is
        return requests.post(f"{self.address}/invocations", data=body, headers=headers, timeout=290)

    def answers(self, *rows: Any, **more: Any) -> list[dict[str, Any]]:
        answer = self.post({"dataframe_records": rows} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]

    def listening(self) -> list[Any]:
        """The sockets that listen on its port, each with its address and its process."""
        port = int(self.address.rsplit(":", 1)[1])
        return [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]

    def refusal(self, content: Any) -> str:
        """Why it refuses: status 400, one line, without a stack trace and without the request."""
        answer = self.post(content)
        assert answer.status_code == 400, answer.text[:1000]
        error: dict[str, str] = answer.json()
        assert error["error_code"] == "INVALID_PARAMETER_VALUE"
        assert "stack_trace" not in error
        for part in ("Traceback", "\n", "Failed to predict", IMAGE[:30]):
            assert part not in error["message"]
        return error["message"]

    def peak_memory(self) -> int:
        """The most memory that its process has used so far, in bytes."""
        status = Path(f"/proc/{self.listening()[0].pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@pytest.fixture
def served(champion: str) -> Iterator[Served]:
    """Whatever a test sends, the same processes go on and answer as before, on this machine alone."""
    made = Served(champion)
    before = [(socket.pid, socket.laddr.ip) for socket in made.listening()]
    assert {ip for _, ip in before} == {"127.0.0.1"}
    yield made
    assert made.answers(GOOD)
    assert [(socket.pid, socket.laddr.ip) for socket in made.listening()] == before


def test_served_equals_evaluated_on_the_whole_test_split(
    served: Served, clone: Clone, evaluated: Evaluated
) -> None:
    """The answers over HTTP are the stored predictions, and have the scores that the model card names."""
    rows = [{"image": image_decoding.encode_base64(image)} for image in evaluated.images]
    batches = [rows[start : start + BATCH_LIMIT] for start in range(0, len(rows), BATCH_LIMIT)]
    answers = [answer for batch in batches for answer in served.answers(*batch)]
    found = [list(answer["probabilities"].values()) for answer in answers]
    assert np.allclose(found, evaluated.probabilities, atol=1e-5)
    accuracy = (np.array([answer["label"] for answer in answers]) == evaluated.labels.astype(str)).mean()
    decision = json.loads((clone.folder / "quickstart/selection.json").read_text())
    assert accuracy == decision["test_accuracy"]
    card = (clone.folder / "quickstart/reports/model-card.md").read_text()
    for name, score in (
        ("error", metrics.calibration_error),
        ("score", metrics.brier),
        ("entropy", metrics.loss),
    ):
        [told] = re.findall(rf"\*\*Calibration\*\*: .*?{name} (0\.\d+)", card)
        assert float(told) == pytest.approx(score(evaluated.labels, np.array(found)), abs=6e-4)
    shares = r"([\d.]+)% of the test images have a confidence of at least 0\.9; it is right about ([\d.]+)%"
    told = re.findall(shares, card)
    sure = np.max(found, axis=1) >= 0.9
    right = np.argmax(found, axis=1) == evaluated.labels
    assert [[f"{100 * sure.mean():.1f}", f"{100 * right[sure].mean():.1f}"]] == [list(one) for one in told]


def changed(value: Any) -> list[Any]:
    """Pixels of which the last value is another."""
    image = np.zeros((32, 32, 3), int).tolist()
    image[31][31][2] = value
    return image


ONE_OF = "must have exactly one of image and pixels; received"
INTEGERS = "pixels: must be 32 x 32 x 3 integers from 0 to 255; received"
BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"image": "%%%"}, "image: must be base64; received other text (3 characters)"),
    ({"image": 7}, "image: must be a PNG, JPEG or WebP in base64; received int"),
    ({"image": IMAGE, "pixels": PIXELS.tolist()}, f"{ONE_OF} both"),
    ({"pixels": float("nan")}, f"{ONE_OF} neither"),
    ({"pixels": np.zeros((31, 32, 3), int).tolist()}, f"{INTEGERS} lists of 31 in place of 32"),
    ({"pixels": [*PIXELS[:31].tolist(), [[1, 2, 3]]]}, f"{INTEGERS} lists of 1 to 32 in place of 32"),
    ({"pixels": changed(256)}, f"{INTEGERS} 0 to 256"),
    ({"pixels": changed(2**64)}, f"{INTEGERS} 0 to {2**64}"),
    ({"pixels": changed(True)}, f"{INTEGERS} booleans and integers"),
    ({"pixels": changed(0.5)}, f"{INTEGERS} floats and integers"),
    ({"pixels": changed([1])}, f"{INTEGERS} integers and lists"),
    ({"pixels": "image.png"}, f"{INTEGERS} text in place of lists of 32"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_refused_with_its_number_and_what_is_wrong(
    served: Served, row: dict[str, Any], reason: str
) -> None:
    assert served.refusal({"dataframe_records": [GOOD, row]}) == f"row 1: {reason}"


def test_top_k_gives_the_most_probable_classes_first(served: Served) -> None:
    [everything], [most] = served.answers(GOOD), served.answers(GOOD, params={"top_k": 2})
    ordered = sorted(everything["probabilities"].items(), key=lambda item: -item[1])
    assert list(most["probabilities"].items()) == ordered[:2]
    refused = served.refusal({"dataframe_records": [GOOD], "params": {"top_k": 11}})
    assert refused == "params: top_k: must be from 1 to 10; received 11"


@pytest.mark.parametrize(
    ("content", "received"),
    [({"inputs": []}, 0), ({"dataframe_split": {"data": []}}, 0), ({"instances": [GOOD] * 9_999}, 9_999)],
    ids=range(3),
)
def test_an_empty_or_too_large_batch_is_refused(served: Served, content: Any, received: int) -> None:
    allowed = f"rows with image or pixels: a request must have 1 to {BATCH_LIMIT}; received"
    assert served.refusal(content) == f"{allowed} {received}"


def test_large_images_at_the_same_time_take_the_memory_of_one(served: Served) -> None:
    """40 megapixels in 1,600 bytes, of which each copy takes 160 MB."""
    large = file_of(Image.new("RGB", (8_000, 5_000)), "WEBP", lossless=True)
    content = {"dataframe_records": [{"image": base64.b64encode(large).decode()}]}
    assert served.post(content).ok
    reason = "a request's files must have at most 100,000,000 pixels; received more"
    rows = content["dataframe_records"] * 3
    assert served.refusal({"dataframe_records": rows}) == f"row 2: image: {reason}"
    before = served.peak_memory()
    with ThreadPoolExecutor(6) as pool:
        assert all(answer.ok for answer in pool.map(served.post, [content] * 6))
    assert served.peak_memory() - before < 300 * 2**20


def test_a_long_text_among_pixels_takes_no_memory(served: Served) -> None:
    """NumPy would make each of 20,000 texts 50,000 characters long: 4 GB for a request of 110 kB."""
    texts = ["a" * 50_000, *[""] * 20_000]
    before = served.peak_memory()
    rows = [{"pixels": texts}, {"pixels": [texts]}, {"pixels": changed("a" * 50_000)}]
    for row in rows:
        assert served.refusal({"dataframe_records": [row]}).startswith(f"row 0: {INTEGERS}")
    assert served.peak_memory() - before < 100 * 2**20


@pytest.mark.parametrize("row", [GOOD, {"pixels": PIXELS.tolist()}], ids=["image", "pixels"])
def test_every_format_of_mlflow_is_answered_alike(served: Served, row: dict[str, Any]) -> None:
    [(column, value)] = row.items()
    expected = served.answers(GOOD)
    formats: list[dict[str, Any]] = [
        {"dataframe_records": [row]},
        {"dataframe_split": {"columns": [column], "data": [[value]]}},
        {"instances": [row]},
        {"inputs": {column: [value]}},
        *([{"inputs": [row]}] if column == "image" else []),
    ]
    for content in formats:
        assert served.post(content).json()["predictions"] == expected, list(content)


def test_requests_at_the_same_time_get_their_own_answers(served: Served) -> None:
    shades = [np.full((32, 32, 3), shade, np.uint8) for shade in range(0, 250, 10)]
    rows = [{"image": image_decoding.encode_base64(shade)} for shade in shades]
    alone = [served.answers(row) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(served.answers, rows)) == alone
