"""Errors of commands: one line for what a person can act on, a traceback for a bug in the pipeline."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import UNAUTHENTICATED
from requests import Timeout
from sqlalchemy.exc import OperationalError

from pipeline.support import locks
from pipeline.support.errors import JOB, PipelineError, one_line, printable
from tests.called import call
from tests.conftest import ROOT

SQLITE, STORE = "MLflow: (sqlite3.OperationalError)", "sqlite:////there/mlflow.db"
USER = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PipelineError("params.yaml: seeds: missing"), "params.yaml: seeds: missing"),
        (PipelineError("ftp://ada:a@hunter2@there/x?y=hunter2&z"), "ftp://***@there/x?***"),
        (PipelineError("sqlite:////home/a@b/mlflow.db: why?"), "sqlite:////home/a@b/mlflow.db: why?"),
        (MlflowException("No such\n  run"), "MLflow: No such run"),
        (MlflowException("error 401", UNAUTHENTICATED), f"MLflow: error 401; {USER}"),
        (MlflowException("to http://ada:hunter2@there/api failed"), "MLflow: to http://***@there/api failed"),
        (Timeout("No answer: /api/run?token=hunter2: too late"), "MLflow: No answer: /api/run?***: too late"),
        (OperationalError("SELECT 1", {}, Exception("full")), "MLflow: (builtins.Exception) full"),
        (OperationalError("", {}, sqlite3.OperationalError("disk full")), f"{SQLITE} disk full ({STORE})"),
        (MlflowException("\x1b[2Jgone\x07\u202e"), "MLflow: \\x1b[2Jgone\\x07\\u202e"),
        (PipelineError("to\x1b]8;;http://there\x07"), "to\\x1b]8;;http://there\\x07"),
        (ValueError("a fault of ours"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_from_outside_become_one_line(
    error: Exception, line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE)
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("raised", "code", "end"),
    [
        ("PipelineError('no')", 1, "error: no\n"),
        ("KeyboardInterrupt", 130, "error: interrupted\n"),
        ("SystemExit(3)", 3, ""),
        ("ZeroDivisionError('ours')", 1, "ZeroDivisionError: ours\n"),
    ],
)
def test_status_and_last_line_of_a_command(raised: str, code: int, end: str) -> None:
    program = "from pipeline.support.errors import PipelineError, one_line_errors\n@one_line_errors\n"
    program += f"def main():\n    raise {raised}\nmain()\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.endswith(end)
    assert ("Traceback" in done.stderr) == ("ZeroDivisionError" in raised)


@pytest.mark.parametrize(
    "command",
    [
        "fetch",
        "prepare",
        "recipes",
        "diagnose",
        "report",
        "plan",
        "sync",
        "quickstart",
        "rollback",
    ],
)
def test_commands_without_arguments_refuse_them_before_any_work(command: str, tmp_path: Path) -> None:
    done = call(tmp_path, command, "unexpected")
    assert done.error == 2
    assert done.err == "error: Got unexpected extra argument (unexpected)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["search shallow --seed=-1", "train shallow 2147483648", "predict a -- -1"]
)
def test_a_seed_that_is_none_is_refused(command: str, tmp_path: Path) -> None:
    done = call(tmp_path, *command.split())
    assert (done.error, done.err.count("\n")) == (2, 1)
    assert "is not in the range 0<=x<=2147483647" in done.err


def test_a_command_holds_one_lock_whatever_options_it_has(workplace: Path) -> None:
    @click.command("train", cls=locks.SingleInstance)
    @click.argument("variant")
    @click.argument("seed", type=int)
    @click.option("--jobs")
    def train(variant: str, seed: int, jobs: str | None) -> None:
        assert not locks.is_free("train-shallow-0"), (variant, seed, jobs)

    for options in (["--jobs", "2"], ["--jobs=2"], []):
        train.main(["shallow", "0", *options], "train", standalone_mode=False)
    assert [path.name for path in (workplace / ".pipeline/locks").iterdir()] == ["train-shallow-0.lock"]


def test_errors_are_worded_without_importing_what_raises_them() -> None:
    heavy = {"mlflow", "requests", "sqlalchemy"}
    code = f"import sys, pipeline.support.errors; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_in_a_job_the_commands_that_a_message_names_get_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "run `make sync`, then `make promote FORCE=1`, not `make setup`"
    assert printable(text) == text
    monkeypatch.setenv(JOB, "jobs/pets")
    named = "run `make sync JOB=jobs/pets`, then `make promote FORCE=1 JOB=jobs/pets`, not `make setup`"
    assert printable(text) == named
