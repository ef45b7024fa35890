"""Errors that a person can act on: one line, no traceback."""

import sys
from collections.abc import Callable
from functools import wraps


class PipelineError(Exception):
    """What is wrong, where, what is allowed and what was received, in one line."""


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Let a command end with one line: exit status 1 on a `PipelineError` or an `OSError`, 130 on Ctrl-C."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except PipelineError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # a full disk, no permission ...
            where = f"{error.filename}: " if error.filename else ""
            sys.exit(f"error: {where}{' '.join((error.strerror or str(error)).split())}")
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
