"""What listens where, what is kept of the environment, what is unpickled, and `make audit`."""

import json
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.repo import Repo

from tests import projects
from tests.conftest import BIN, ROOT, Clone, git
from tests.servers import answering, answers, free_port, server

# What listens where


def recipe(target: str) -> list[str]:
    """The command that a target of the Makefile ends with."""
    command = ["make", "--no-print-directory", "--dry-run", target, "MODEL=digits"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return shlex.split(printed.stdout.splitlines()[-1])


def addresses_of_children() -> set[str]:
    """The addresses that processes which this one started listen on."""
    found: set[str] = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found |= {s.laddr.ip for s in child.net_connections() if s.status == psutil.CONN_LISTEN}
    return found


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
    environment = clone.environment | {"MLFLOW_TRACKING_URI": clone.store, "PYTHONPATH": str(ROOT)}
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
import sys
from pipeline import __main__

commands, sys.argv = sys.argv[1:], [__main__.__file__]  # MLflow logs the git remote of this file
for command in commands:
    __main__.main(command.split())
"""
SERVE = """
import mlflow
model = mlflow.pyfunc.load_model("models:/digits@champion")
print(model.predict(model.input_example)[0]["label"])
import pickle
pickle.loads(pickle.dumps(print))  # which shows that it would be seen
"""
STAGES = ["evaluate", "select", "promote", "diagnose", "report"]
PROGRAMS = [  # TensorFlow's threads are set at the start of a process
    [RUN, "fetch", "prepare", "recipes"],
    [RUN + SERVE, "train shallow 0", "predict shallow 0", *STAGES],
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
    params = projects.small_params(shallow={"epochs": 3})
    params["data"]["archives"] = [ARCHIVE]
    params["promotion"] = {"margin": 0.0}
    project = Clone(projects.make(folder / "project", params).folder)
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", REMOTE],
        ["add", "params.yaml"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "start"],
    ):
        git(command, project.folder)
    (folder / "sitecustomize.py").write_text(AUDIT)
    (folder / "unpickled").touch()
    more = SECRETS | {
        "MLFLOW_TRACKING_URI": project.store,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": str(folder),
        "UNPICKLED": str(folder / "unpickled"),
    }
    done = [project.run(sys.executable, "-c", *program, more=more) for program in PROGRAMS]
    output = "".join(one.stdout + one.stderr for one in done)
    return Observed(project.folder, output, (folder / "unpickled").read_text())


@pytest.mark.faults
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
def test_nothing_is_unpickled_by_any_stage_or_the_served_model(observed: Observed) -> None:
    assert observed.unpickled.split("]")[-1] == " builtins print\n"
    assert observed.unpickled.count("\n") == 1


def test_dvc_keeps_what_it_unpickles_in_the_checkout(tmp_path: Path) -> None:
    """As `make setup` sets it, and for the quickstart; also in a copy without git."""
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("config.local", "tmp"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    make = ["make", "--dry-run", "--always-make", "--file", str(ROOT / "Makefile"), "setup"]
    printed = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in printed.splitlines() if "site_cache_dir" in line]
    subprocess.run(line.replace(".venv/bin", str(BIN)), shell=True, cwd=tmp_path, check=True)
    quick = projects.make(tmp_path / "quickstart", projects.small_params()).folder
    for folder in (tmp_path, quick):
        with Repo(str(folder), uninitialized=True) as repo:
            assert repo.site_cache_dir.startswith(f"{folder}/.dvc/tmp/site/")


# make audit


GHSA = "GHSA-0000-1111-2222"


def advisories(vulnerable: str, code: int) -> type[BaseHTTPRequestHandler]:
    """Answers like those of osv.dev, which knows one vulnerable package."""
    affected = {
        "package": {"name": vulnerable, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}],
    }
    advisory = {"id": GHSA, "summary": "bad", "affected": [affected], "published": "2026-01-01T00:00:00Z"}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = {"vulns": [advisory]} if query["package"]["name"] == vulnerable else {}
            body = json.dumps(known).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    return Handler


def audit(folder: Path, service: str, acknowledged: str = "") -> subprocess.CompletedProcess[str]:
    """`make audit`'s script on a copy of what it reads."""
    for name in (".ci", "pipeline"):
        ignored = shutil.ignore_patterns("__pycache__")  # others write there
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=ignored)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    with (folder / ".ci/acknowledged").open("a") as file:
        file.write(acknowledged)
    return Clone(folder).run(".ci/audit", more={"PIP_AUDIT_OSV_URL": service}, check=False)


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
        ("mlflow", 200, "", 1, GHSA),
        ("mlflow", 200, f"{GHSA} a test\n", 0, "No known vulnerabilities found, 1 ignored\n"),
        ("mlflow", 200, f"{GHSA}\n", 1, GHSA),  # without a reason
        ("nothing", 503, "", 0, "not compared with osv.dev, which cannot be reached: "),
    ],
)
def test_audit_fails_on_a_known_vulnerability_that_nobody_acknowledged(
    tmp_path: Path, vulnerable: str, status: int, acknowledged: str, code: int, printed: str
) -> None:
    with answering(advisories(vulnerable, status)) as address:
        done = audit(tmp_path, f"{address}/v1/query", acknowledged)
    assert done.returncode == code, done.stderr
    assert printed in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
