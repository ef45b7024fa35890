"""Examples of docs/serving.md and of the quickstart run as they are printed; nginx does as documented."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.shared import image_decoding
from tests.called import call
from tests.commands.test_serving import Served
from tests.conftest import SERVE, Clone, Evaluated
from tests.docs import examples
from tests.servers import free_port, server

PAGE = "docs/serving.md"
START, *BASH = examples(PAGE, "bash", count=4)
PYTHON = examples(PAGE, "python", count=2)
ANSWER, *_ = examples(PAGE, "json", count=2)
[NGINX] = examples(PAGE, "nginx", count=1)
DOCUMENTED = "http://127.0.0.1:5001"


@pytest.fixture
def run(clone: Clone, champion: str) -> Callable[..., str]:
    """What a command prints in the clone, with the server's address in place of the documents'."""

    def called(*command: str) -> str:
        done = clone.run(*(word.replace(DOCUMENTED, champion) for word in command))
        assert "pipeline classify" not in command[-1] or done.stderr == ""
        return str(done.stdout)

    return called


@pytest.mark.parametrize("example", BASH, ids=range(len(BASH)))
def test_a_shell_example_runs_as_it_is_printed(
    run: Callable[..., str], clone: Clone, evaluated: Evaluated, example: str
) -> None:
    printed = run("bash", "-euo", "pipefail", "-c", example)
    label = str(evaluated.probabilities[0].argmax())
    if "curl" in example:
        [answer] = json.loads(printed)["predictions"]
        assert answer["label"] == label
        assert len(answer["probabilities"]) == 3
        assert set(json.loads(ANSWER)["predictions"][0]) == set(answer)
    elif "models predict" in example:
        [answer] = json.loads((clone.folder / "quickstart/answers.json").read_text())["predictions"]
        assert answer["label"] == label
    else:
        assert printed.splitlines()[1].startswith(f"quickstart/digit.png,{label},")
        assert len(printed.splitlines()) > 2


@pytest.mark.parametrize("example", PYTHON, ids=range(len(PYTHON)))
def test_a_python_example_runs_as_it_is_printed(
    clone: Clone,
    champion: str,
    evaluated: Evaluated,
    example: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(clone.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", clone.store)
    exec(example.replace(DOCUMENTED, champion), {})
    printed = capsys.readouterr().out
    if "requests" in example:
        assert printed.startswith(str(evaluated.probabilities[0].argmax()))
    else:
        counted = [line.split()[-1] for line in printed.splitlines() if line[:1].isdigit()]
        assert sum(map(int, counted)) == 100


def test_the_commands_that_the_quickstart_prints_work(
    run: Callable[..., str], clone: Clone, evaluated: Evaluated
) -> None:
    printed = (clone.folder.parent / "quickstart.txt").read_text()
    titles = ("serve", "ask with curl", "or in Python", "classify")
    serve, curl, python, classify = (
        re.findall(rf"^ *{title}  +(.*)$", printed, re.MULTILINE)[0] for title in titles
    )
    assert serve == START.strip() == SERVE.format(port=5001)
    label = str(evaluated.probabilities[0].argmax())
    assert json.loads(run("bash", "-c", curl))["predictions"][0]["label"] == label
    assert f"'label': '{label}'" in run("bash", "-c", python)
    words = classify.removeprefix("python -m pipeline ").split()
    assert "%" in call(clone.folder, *words, MLFLOW_TRACKING_URI=clone.store).out


@dataclass(frozen=True)
class Proxy:
    """A running nginx and the certificate that it shows."""

    address: str
    certificate: Path

    def post(self, content: bytes, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url, certificate = f"{self.address}/invocations", str(self.certificate)
        return requests.post(url, data=content, headers=named, verify=certificate, timeout=60)


@pytest.fixture(scope="module")
def proxy(champion: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx as the document sets it up, on another port and with a certificate of its own."""
    folder, https = tmp_path_factory.mktemp("nginx"), free_port()
    made = Proxy(f"https://127.0.0.1:{https}", folder / "champion.pem")
    files = f"-keyout {folder}/champion.key -out {made.certificate}"
    request = (
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=champion -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(["openssl", *request.split(), *files.split()], check=True, capture_output=True)
    site = NGINX.replace(DOCUMENTED, champion).replace("listen 443", f"listen 127.0.0.1:{https}")
    site = site.replace("/etc/ssl/certs", str(folder)).replace("/etc/ssl/private", str(folder))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.getuid() == 0 else ""  # who owns this folder
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{site}}}\n"
    )

    def ready() -> bool:
        try:
            return requests.get(f"{made.address}/ping", timeout=5, verify=str(made.certificate)).ok
        except requests.ConnectionError:
            return False

    command = [shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx", "-c", f"{folder}/nginx.conf"]
    with server(command, folder, {}, folder / "log", ready):
        yield made


@pytest.mark.system
def test_the_proxy_passes_good_requests_and_the_models_refusals(proxy: Proxy, evaluated: Evaluated) -> None:
    image = image_decoding.encode_base64(evaluated.images[0])
    good = json.dumps({"dataframe_records": [{"image": image}]}).encode()
    answer = proxy.post(good, Content_Type="application/json; charset=utf-8")
    assert answer.json()["predictions"][0]["label"] == str(evaluated.probabilities[0].argmax())
    bad = proxy.post(b'{"dataframe_records": [{"image": "%"}]}', Content_Type="application/json")
    assert bad.status_code == 400
    assert bad.json()["message"].startswith("row 0: image: must be base64")


@pytest.mark.system
@pytest.mark.parametrize(
    "kind", [None, "text/plain", "text/csv", "application/vnd.apache.parquet", "application/jsonp"]
)
def test_the_proxy_passes_json_only(proxy: Proxy, kind: str | None) -> None:
    assert proxy.post(b"{}", **({"Content_Type": kind} if kind else {})).status_code == 415


@pytest.mark.system
@pytest.mark.parametrize(
    "value", [b"[" * 990 + b"]" * 990, b"[" * 100_000 + b"]" * 100_000, b"9" * 6_000], ids=range(3)
)
def test_json_that_mlflow_cannot_read_is_refused_in_one_line(proxy: Proxy, value: bytes) -> None:
    rows = b'{"dataframe_records":[{"pixels":' + value + b"}]}"
    answer = proxy.post(rows, Content_Type="application/json")
    assert answer.status_code == 400
    assert answer.json() == {"error_code": "BAD_REQUEST", "message": "the request cannot be read"}


@pytest.mark.system
def test_the_proxy_bounds_a_request_and_what_may_be_asked(proxy: Proxy) -> None:
    long = b'{"dataframe_records": [{"image": ""}], "params": {"top_k": "%s"}}' % (b"1" * 9 * 2**20)
    assert proxy.post(long, Content_Type="application/json").status_code == 413
    for path, status in (("/invocations", 403), ("/version", 404)):
        answer = requests.get(f"{proxy.address}{path}", verify=str(proxy.certificate), timeout=60)
        assert answer.status_code == status


TEXTS = ["a" * 50_000, *[""] * 20_000]
BOMBS = {  # which MLflow's own parsing makes gigabytes of
    "text of inputs": {"inputs": {"image": TEXTS}},
    "text of instances": {"instances": [{"pixels": text} for text in TEXTS]},
    "text of top_k": {"dataframe_records": [], "params": {"top_k": TEXTS}},
    "a column of each row": {"dataframe_records": [{f"a{number}": 0} for number in range(15_000)]},
    "ragged records": {"dataframe_records": [[0] * 15_000, *[[0]] * 15_000]},
    "ragged split": {"dataframe_split": {"data": [[0] * 15_000, *[[0]] * 15_000]}},
    "escaped": {"dataframe_records": [{"image": '"}], "inputs": {"x": "'}], "inputs": {"x": TEXTS}},
    "empty lists": {"dataframe_records": [{"pixels": [[]] * 2_000_000}]},
    "empty rows": {"dataframe_records": [{}] * 2_000_000},
}


@pytest.mark.system
@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_behind_the_proxy_no_request_takes_much_memory(proxy: Proxy, champion: str, content: Any) -> None:
    served = Served(champion)
    before = served.peak_memory()
    body = json.dumps(content, separators=(",", ":")).encode()
    assert proxy.post(body, Content_Type="application/json").status_code == 400
    assert served.peak_memory() - before < 400 * 2**20


@pytest.mark.system
def test_the_proxy_passes_all_ways_to_write_a_row(proxy: Proxy, evaluated: Evaluated) -> None:
    image, pixels = image_decoding.encode_base64(evaluated.images[0]), evaluated.images[0].tolist()
    rows: list[dict[str, Any]] = [{"image": image, "pixels": None}, {"pixels": pixels}] * 50
    written = json.dumps({"dataframe_records": rows, "params": {"top_k": 1}}, indent=1).replace("/", "\\/")
    answers = proxy.post(written.encode(), Content_Type="application/json").json()["predictions"]
    label = str(evaluated.probabilities[0].argmax())
    assert [list(answer["probabilities"]) for answer in answers] == [[label]] * 100
