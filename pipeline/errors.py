"""Errors that a person can act on: one line, no traceback."""

import re
import sys
from collections.abc import Callable
from functools import wraps

# What comes from outside: MLflow's refusals, the way to its server, its database. Looked up among the
# modules that are imported, so that a stage that needs none of them imports none.
OUTSIDE = {
    "mlflow.exceptions": "MlflowException",
    "requests.exceptions": "RequestException",
    "sqlalchemy.exc": "DBAPIError",
}
WITHOUT_CREDENTIALS = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}


class PipelineError(Exception):
    """What is wrong, where, what is allowed and what was received, in one line."""


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Let a command end with one line: exit status 1 on an error that is told, 130 on Ctrl-C."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = told(error)
            if line is None:
                raise
            sys.exit(f"error: {line}")

    return wrapped


def in_a_line(text: object) -> str:
    """What an error or any other text says, without its line breaks."""
    return " ".join(str(text).split())


def told(error: Exception) -> str | None:
    """An error in one line, without passwords of URLs; None of one that is a fault of the pipeline."""
    if isinstance(error, PipelineError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # a full disk, no permission ...
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not any(isinstance(error, getattr(sys.modules.get(m), n, ())) for m, n in OUTSIDE.items()):
        return None
    text = in_a_line(str(error).partition("[SQL: ")[0])
    line = f"MLflow: {re.sub(r'://[^/@ ]+@', '://***@', text)}"
    if getattr(error, "error_code", "") in WITHOUT_CREDENTIALS:
        line += "; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD say who you are"
    return line
