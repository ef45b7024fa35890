"""Errors that a person can act on: one line, no traceback."""

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

Arguments = ParamSpec("Arguments")

# Errors of MLflow, its server and its database. They are looked up among the imported modules, so that no
# stage imports a package only for its exceptions.
EXTERNAL = {
    "mlflow.exceptions": "MlflowException",
    "requests.exceptions": "RequestException",
    "sqlalchemy.exc": "DBAPIError",
}
SQLITE = "(sqlite3."
JOB = "PIPELINE_JOB"  # the variable that names the folder of the job that runs, if any
WITHOUT_CREDENTIALS = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}


class PipelineError(Exception):
    """One line: what is wrong, where, what was expected and what was received."""


def one_line_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Make a command print errors as one line and exit with status 1; with 2 if it was called in a wrong
    way, and with 130 on Ctrl-C."""

    @wraps(main)
    def wrapped(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            main(*arguments, **options)
        except (KeyboardInterrupt, click.Abort):
            print("error: interrupted", file=sys.stderr)
            sys.exit(130)
        except click.ClickException as error:
            print(f"error: {in_a_line(error.format_message())}", file=sys.stderr)
            sys.exit(error.exit_code)
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            sys.exit(f"error: {line}")

    return wrapped


def in_a_line(text: object) -> str:
    """A text or an error's message without line breaks."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """A text with what could control a terminal written out: a server's answer may hold anything.

    In a job, the `make` commands that it names get the job's folder.
    """
    if job := os.environ.get(JOB):
        text = re.sub(r"(?<=`)make (promote|rollback|sync|champion)\b[^`]*", rf"\g<0> JOB={job}", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def masked(text: str) -> str:
    """A text without the users, passwords and queries of the addresses in it."""
    return re.sub(r"\?\S*=\S*?(?=:?(\s|$))", "?***", re.sub(r"://(?!/)\S*@", "://***@", text))


def one_line(error: Exception) -> str | None:
    """An error's message in one printable line, without passwords in addresses; None for a bug of ours."""
    line = _worded(error)
    return None if line is None else printable(line)


def _worded(error: Exception) -> str | None:
    if isinstance(error, PipelineError):
        return masked(str(error))
    if isinstance(error, OSError) and error.strerror:  # a full disk, no permission ...
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not any(isinstance(error, getattr(sys.modules.get(m), n, ())) for m, n in EXTERNAL.items()):
        return None
    line = str(error).partition("[SQL: ")[0].partition("(Background on ")[0]
    if SQLITE in line:  # which does not say of which file
        line += f" ({sys.modules['mlflow'].get_tracking_uri()})"
    line = "MLflow: " + masked(in_a_line(line))
    if getattr(error, "error_code", "") in WITHOUT_CREDENTIALS:
        line += "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return line
