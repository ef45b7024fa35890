"""A tracking server with users: a password trains and promotes, anything else is refused in one line."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import jobs
from tests.conftest import BIN, ROOT
from tests.servers import answers, free_port, server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

# The requests of a training, without the training.
CALLS = """
import mlflow, numpy
from pipeline.records import recording, tracking
from pipeline.shared.errors import one_line_errors

@one_line_errors
def main():
    with tracking.training_run("digits", "shallow-0", {"variant": "shallow"}):
        mlflow.log_params({"epochs": 1})
        mlflow.log_metric("val_loss", 0.5, step=0)
        mlflow.log_text("kept", "note.txt")
        recording.log_dataset("digits", "training", numpy.zeros((1, 32, 32, 3), numpy.uint8), "0" * 64)
    run = tracking.find_run("digits", {"variant": "shallow"})
    print(run.data.metrics["val_loss"], mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"))

main()
"""


@dataclass(frozen=True)
class Guarded:
    """A running server, and a user of it."""

    address: str
    username: str
    password: str

    @property
    def user(self) -> dict[str, str]:
        """The environment in which the user is known."""
        names = {"MLFLOW_TRACKING_USERNAME": self.username, "MLFLOW_TRACKING_PASSWORD": self.password}
        return names | {"MLFLOW_TRACKING_URI": self.address}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """`mlflow server` as docs/security.md starts it, with a user beside the administrator."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    address = f"http://127.0.0.1:{port}"
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///users.db\nadmin_username = admin\n"
        "auth_cache_ttl_seconds = 60\n"
    )
    administrator = secrets.token_urlsafe()
    environment = clean() | {
        "MLFLOW_AUTH_CONFIG_PATH": "auth.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": administrator,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
    }
    command = [str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--port", str(port)]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1"]
    with server(command, folder, environment, folder / "log", lambda: answers(f"{address}/health")):
        made = Guarded(address, "ada", secrets.token_urlsafe())
        code = "import sys; from mlflow.server import get_app_client as client; "
        code += "client('basic-auth', sys.argv[1]).create_user(*sys.argv[2:])"
        known = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": administrator}
        done = run(["-c", code, address, made.username, made.password], folder, **known)
        assert done.returncode == 0, done.stderr
        yield made


def clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the pipeline on its path."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=clean() | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_right_password_allows_all_requests_of_a_training(guarded: Guarded, tmp_path: Path) -> None:
    done = run(["-c", CALLS], tmp_path, **guarded.user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("0.5 kept\n")
    assert not list(tmp_path.glob("mlruns/*"))


def test_a_missing_model_has_no_champion(guarded: Guarded, tmp_path: Path) -> None:
    code = "from pipeline.champion import registry; print(registry.version_at('none', 'champion'))"
    done = run(["-c", code], tmp_path, **guarded.user)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


@pytest.mark.parametrize("command", [["-c", CALLS], ["-m", "pipeline.rollback"]], ids=["train", "rollback"])
@pytest.mark.parametrize("who", ["the wrong password", "an unknown user", "no password"])
def test_other_users_are_refused_in_one_line_within_seconds(
    guarded: Guarded, command: list[str], who: str
) -> None:
    changed = {
        "the wrong password": {"MLFLOW_TRACKING_PASSWORD": "hunter2"},
        "an unknown user": {"MLFLOW_TRACKING_USERNAME": "eve"},
        "no password": {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""},
    }
    done = run(command, ROOT, **guarded.user | changed[who])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: MLflow: ")
    assert done.stderr.endswith("; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD\n")
    assert done.stderr.count("\n") == 1
    assert not {"hunter2", guarded.password} & {*done.stderr.split()}


def test_a_user_trains_and_promotes(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = jobs.small_params(shallow={"epochs": 2})
    job = jobs.make(tmp_path / "job", params, "promote", **guarded.user)
    for key, value in guarded.user.items():
        monkeypatch.setenv(key, value)
    assert job.client.get_model_version_by_alias("digits", "champion").status == "READY"
