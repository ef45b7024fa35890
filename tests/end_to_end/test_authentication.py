"""A tracking server with users: a password records and promotes, anything else is refused in one line."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from mlflow import MlflowClient

from tests.called import call
from tests.conftest import BIN, Clone
from tests.servers import http_server

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),
]

SETTINGS = """[mlflow]
default_permission = READ
database_uri = sqlite:///users.db
admin_username = admin
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class Guarded:
    """The address of a running server, and a user of it."""

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
    folder, administrator = tmp_path_factory.mktemp("guarded"), secrets.token_urlsafe()
    (folder / "auth.ini").write_text(SETTINGS)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment = clean | {
        "MLFLOW_AUTH_CONFIG_PATH": "auth.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": administrator,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
    }
    command = f"{BIN}/mlflow server --app-name basic-auth --port {{port}} --workers 1"
    command += " --backend-store-uri sqlite:///mlflow.db"
    with http_server(command, "health", folder, environment, folder / "log") as address:
        made = Guarded(address, "ada", secrets.token_urlsafe())
        with pytest.MonkeyPatch.context() as patch:
            for key, value in Guarded(address, "admin", administrator).user.items():
                patch.setenv(key, value)
            from mlflow.server import get_app_client  # half a second, and a warning

            get_app_client("basic-auth", address).create_user(made.username, made.password)
        yield made


def test_a_user_records_trainings_and_promotes(
    guarded: Guarded, clone: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = clone.copy_quickstart(tmp_path_factory.mktemp("copy"))
    done = call(copy.folder, "sync", **guarded.user)
    assert (done.error, done.err) == (None, "")
    assert done.out.count("logged its run") == 3
    assert not list(copy.folder.glob("mlruns/*"))
    for key, value in guarded.user.items():
        monkeypatch.setenv(key, value)
    assert MlflowClient().get_model_version_by_alias("digits", "champion").status == "READY"
    assert "nothing was missing" in call(copy.folder, "sync", **guarded.user).out


@pytest.mark.parametrize("command", ["sync", "rollback", "train shallow 0"])
@pytest.mark.parametrize(
    "changed",
    [
        {"MLFLOW_TRACKING_PASSWORD": "hunter2"},
        {"MLFLOW_TRACKING_USERNAME": "eve"},
        {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""},
    ],
    ids=["the wrong password", "an unknown user", "no password"],
)
@pytest.mark.timeout(60, func_only=True)
def test_other_users_are_refused_in_one_line_within_seconds(
    guarded: Guarded, clone: Clone, command: str, changed: dict[str, str]
) -> None:
    done = call(clone.folder / "quickstart", *command.split(), **guarded.user | changed)
    assert (done.out, done.err) == ("", "")
    assert done.refusal.startswith("MLflow: ")
    assert done.refusal.endswith("; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    assert all(secret not in done.refusal for secret in ("hunter2", guarded.password))
