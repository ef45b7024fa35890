"""Every command completes its environment: no telemetry, and a user without a name, a home or UTF-8."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.support.environment import TELEMETRY
from tests.conftest import ROOT, Clone

# What a process of a container with `--user 12345` sees; Python runs this file at its start.
NAMELESS = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""
USER = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


def in_a_process(code: str, folder: Path, **environment: str) -> str:
    """What Python prints that runs `code` with nothing but this environment, after it was completed."""
    code = f"from pipeline.support import environment; environment.complete(); {code}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answer(printed: str) -> str:
    """`true` or `false`, which is all that was printed, or an option among others."""
    [value] = re.findall(r"^(?:gatherUsageStats = )?(true|false)$", printed, re.MULTILINE | re.IGNORECASE)
    return str(value).lower()


@pytest.mark.parametrize(
    "sends",
    [
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(not is_telemetry_disabled())",
        "from dvc.analytics import is_enabled; print(is_enabled())",
        pytest.param(
            "from ray._common.usage.usage_lib import usage_stats_enabled; print(usage_stats_enabled())",
            marks=pytest.mark.system,
        ),
        pytest.param(
            "from streamlit.web.cli import main; main(['config', 'show'])",
            marks=pytest.mark.system,
        ),
    ],
    ids=TELEMETRY,
)
def test_telemetry_is_off_unless_it_was_chosen(
    sends: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert answer(in_a_process(sends, tmp_path)) == "false"
    switch = request.node.callspec.id
    chosen = {"true": "false", "false": "true", "0": "1"}[TELEMETRY[switch]]
    asked = "" if switch == "DVC_NO_ANALYTICS" else chosen  # DVC's is on only if it is empty
    assert answer(in_a_process(sends, tmp_path, **{switch: asked})) == "true"


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A folder in which Python runs for a user id that has neither a name nor a home."""
    (tmp_path / "sitecustomize.py").write_text(NAMELESS)
    return tmp_path


def test_a_user_id_without_a_name_gets_one_and_a_home(nameless: Path) -> None:
    """MLflow asks for the home as soon as it is imported, and for the user when a run starts."""
    context = "from mlflow.tracking.context.default_context import _get_user; print(_get_user())"
    assert in_a_process(context, nameless) == f"uid-{os.getuid()}"
    home = "from pathlib import Path; print(Path.home())"
    assert in_a_process(home, nameless) == str(nameless / ".pipeline/home")
    assert in_a_process(home, nameless, HOME="/elsewhere") == "/elsewhere"


def test_a_home_that_does_not_exist_gives_no_warnings(tmp_path: Path) -> None:
    config = "import matplotlib; print(matplotlib.get_configdir())"
    assert in_a_process(config, tmp_path, HOME=str(tmp_path / "gone")) == str(
        tmp_path / ".pipeline/matplotlib"
    )


@pytest.mark.parametrize(
    ("encoding", "bar"), [("ascii", "########"), ("iso-8859-1", "########"), ("utf-8", "████████")]
)
def test_classify_runs_without_a_name_and_prints_in_any_encoding(
    clone: Clone, nameless: Path, encoding: str, bar: str
) -> None:
    unset = [word for name in USER for word in ("-u", name)]
    classify = [sys.executable, "-m", "pipeline", "classify", "quickstart/digit.png"]
    done = subprocess.run(
        ["env", *unset, *classify, "--model", "models:/digits@champion"],
        cwd=clone.folder,
        env=clone.environment | {"PYTHONPATH": str(nameless), "PYTHONIOENCODING": encoding},
        capture_output=True,
        encoding=encoding,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bar in done.stdout
