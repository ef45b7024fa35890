"""What listens where, what is kept of the environment, what is unpickled, and `make audit`."""

import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.learning import model_file
from pipeline.learning.backend import keras
from pipeline.shared.errors import PipelineError
from tests import jobs
from tests.conftest import BIN, ROOT, Clone, git
from tests.servers import answers, free_port, server

PATH = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_"))}


# What listens where


def recipe(target: str) -> list[str]:
    """The command that a target of the Makefile ends with."""
    printed = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", target, "MODEL=digits"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return shlex.split(printed.stdout.splitlines()[-1])


def addresses_of_children() -> set[str]:
    """The addresses that processes which this one started listen on."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found


@pytest.mark.timeout(900)  # it may wait for the quickstart
@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param("ui", "health", marks=pytest.mark.faults),
        pytest.param("serve", "ping", marks=pytest.mark.faults),
        pytest.param("demo", "_stcore/health", marks=pytest.mark.system),
    ],
)
def test_servers_listen_on_this_machine_alone(clone: Clone, tmp_path: Path, target: str, path: str) -> None:
    port = str(free_port())
    command = [*recipe(target), "--port", port]
    environment = clean() | PATH | {"MLFLOW_TRACKING_URI": clone.store, "PYTHONPATH": str(ROOT)}
    address = f"http://127.0.0.1:{port}/{path}"
    with server(command, tmp_path, environment, tmp_path / "log", lambda: answers(address)):
        assert addresses_of_children() == {"127.0.0.1"}


# What a run keeps, and what is unpickled

SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": "swordfish-1",
    "AWS_SECRET_ACCESS_KEY": "swordfish-2",
    "OTHER_DATABASE": "postgresql://mlflow:swordfish-3@127.0.0.1:9/mlflow",
    "HTTP_PROXY": "http://ada:swordfish-4@127.0.0.1:9",
}
REMOTE = "https://ada:swordfish-5@127.0.0.1:9/pipeline.git"
ARCHIVE = "https://ada:swordfish-6@127.0.0.1:9/cifar-10-python.tar.gz"
AUDIT = """
import os, sys

def hook(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["UNPICKLED"], "a") as file:
            print(sys.argv, *arguments[:2], file=file)

sys.addaudithook(hook)
"""
RUN = """
import importlib, sys

for command in sys.argv[1:]:
    name, *arguments = command.split()
    module = importlib.import_module(f"pipeline.{name}")
    sys.argv = [module.__file__, *arguments]  # MLflow logs the git remote of this file
    module.main()
"""
SERVE = """
import mlflow
model = mlflow.pyfunc.load_model("models:/digits@champion")
print(model.predict(model.input_example)[0]["label"])
"""
PROGRAMS = [  # TensorFlow's threads are set at the start of a process
    [RUN, "fetch", "prepare", "recipes"],
    [RUN + SERVE, "train shallow 0", "predict shallow 0", "evaluate", "promote", "report"],
]


@dataclass(frozen=True)
class Observed:
    """A project in which every stage ran with secrets about, and the names that were unpickled meanwhile."""

    project: Path
    output: str
    unpickled: str


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    folder = tmp_path_factory.mktemp("observed")
    params = jobs.small_params(shallow={"epochs": 3})
    params["data"]["archives"] = [ARCHIVE]
    params["promotion"]["margin"] = 0.0
    project = jobs.make(folder / "project", params).folder
    git(["init", "--quiet"], project)
    git(["remote", "add", "origin", REMOTE], project)
    git(["add", "params.yaml"], project)
    git(["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "start"], project)
    (folder / "sitecustomize.py").write_text(AUDIT)
    (folder / "unpickled").touch()
    environment = clean() | SECRETS | PATH
    environment |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": str(folder),
        "UNPICKLED": str(folder / "unpickled"),
    }
    output = ""
    for program in PROGRAMS:
        command = [sys.executable, "-c", *program]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout, done.stderr)
        output += done.stdout + done.stderr
    return Observed(project, output, (folder / "unpickled").read_text())


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_no_secret_is_in_the_store_the_artifacts_or_the_output(observed: Observed) -> None:
    assert "version 1 is champion" in observed.output
    kept = {"output": observed.output.encode()}
    for folder in ("mlruns", "models", "evaluation", "metrics", "reports"):
        found = [path for path in (observed.project / folder).rglob("*") if path.is_file()]
        assert found
        kept |= {str(path): path.read_bytes() for path in found}
    kept["mlflow.db"] = (observed.project / "mlflow.db").read_bytes()
    assert b"https://127.0.0.1:9/pipeline.git" in kept["mlflow.db"]  # MLflow keeps this much of the remote
    assert [name for name, content in kept.items() if b"swordfish" in content] == []


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_nothing_is_unpickled_by_any_stage_or_the_served_model(observed: Observed) -> None:
    assert observed.unpickled == ""


def test_what_is_unpickled_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    np.save(tmp_path / "objects.npy", np.array([{}, print], dtype=object), allow_pickle=True)
    code = "import numpy; numpy.load('objects.npy', allow_pickle=True)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "UNPICKLED": "unpickled"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert " builtins print\n" in (tmp_path / "unpickled").read_text()


def test_a_model_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)])
    model_file.save(model, tmp_path / "model.keras")
    with pytest.raises(PipelineError, match=r"model\.keras: not a readable Keras model: .*Lambda"):
        model_file.load(tmp_path / "model.keras")


# make audit


@contextmanager
def advisories(vulnerable: str, status: int) -> Iterator[str]:
    """A server that answers like osv.dev, which knows one vulnerable package."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = query["package"]["name"], query["version"]
            affected = {
                "package": {"name": name, "ecosystem": "PyPI"},
                "versions": [version],
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}],
            }
            advisory = {
                "id": "GHSA-0000-1111-2222",
                "summary": "bad",
                "affected": [affected],
                "published": "2026-01-01T00:00:00Z",
            }
            body = json.dumps({"vulns": [advisory]} if name == vulnerable else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1/query"
        running.shutdown()
        thread.join()


def audit(folder: Path, service: str, acknowledged: str = "") -> subprocess.CompletedProcess[str]:
    """`make audit`'s script on a copy of what it reads."""
    shutil.copytree(ROOT / ".ci", folder / ".ci", dirs_exist_ok=True)
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", dirs_exist_ok=True)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    with (folder / ".ci/acknowledged").open("a") as file:
        file.write(acknowledged)
    environment = clean() | PATH | {"PIP_AUDIT_OSV_URL": service}
    command = [str(folder / ".ci/audit")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def test_audit_reports_that_advisories_cannot_be_reached_and_continues(tmp_path: Path) -> None:
    done = audit(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (0, "")
    code, lock = done.stdout.splitlines()
    assert code == "audit: no unsafe code found in pipeline/"
    assert lock.startswith("audit: requirements.lock: not compared with osv.dev, which cannot be reached: ")


def test_audit_fails_on_unsafe_code(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/unsafe.py").write_text("import pickle\n\n\npickle.load(open('models.pkl', 'rb'))\n")
    done = audit(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "B301" in done.stdout
    assert "B403" in done.stdout


@pytest.mark.faults
@pytest.mark.parametrize(
    ("vulnerable", "status", "acknowledged", "code", "printed"),
    [
        ("nothing", 200, "", 0, "audit: requirements.lock: No known vulnerabilities found\n"),
        ("mlflow", 200, "", 1, "GHSA-0000-1111-2222"),
        ("mlflow", 200, "GHSA-0000-1111-2222 a test\n", 0, "No known vulnerabilities found, 1 ignored\n"),
        ("mlflow", 200, "GHSA-0000-1111-2222\n", 1, "GHSA-0000-1111-2222"),  # without a reason
        ("nothing", 503, "", 0, "not compared with osv.dev, which cannot be reached: "),
    ],
)
def test_audit_fails_on_a_known_vulnerability_that_nobody_acknowledged(
    tmp_path: Path, vulnerable: str, status: int, acknowledged: str, code: int, printed: str
) -> None:
    with advisories(vulnerable, status) as service:
        done = audit(tmp_path, service, acknowledged)
    assert done.returncode == code, done.stderr
    assert printed in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
