"""How long MLflow waits for its server: half a minute for one that stopped, 20 seconds for one that hangs.

Logging is an effort: a training, whose files are what counts, goes on without it.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import requests
import urllib3
from mlflow.exceptions import MlflowException
from mlflow.utils import request_utils
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from urllib3.exceptions import NewConnectionError

from pipeline.support.errors import in_a_line, masked, one_line, printable

SECONDS_TO_ANSWER = 10
SECONDS_TO_WAIT = 5  # for MLflow, before a line says so
FAILED: set[str] = set()  # the names of runs that MLflow could not log
FAILURES = (MlflowException, requests.RequestException)  # of MLflow, or of its server
SYNC = "`make sync`"
RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


class PatientRetry(urllib3.Retry):
    """Tries again to reach a server that stopped, and says so, but not one that takes a request and hangs."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        *place: Any,
        **more: Any,
    ) -> Self:
        """The retries that are left. Raises the error if there are none, or if it is a timeout."""
        if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, NewConnectionError):
            raise error
        left = super().increment(method, url, response, error, *place, **more)
        print(f"waiting for MLflow's server: {masked(in_a_line(error or 'it is busy'))}", file=sys.stderr)
        return left


def wait_briefly() -> None:
    """From now on wait so long, unless the environment says otherwise; MLflow itself waits for minutes."""
    os.environ.setdefault(RETRIES, "4")
    os.environ.setdefault(TIMEOUT, "20")
    request_utils.Retry = PatientRetry  # type: ignore[attr-defined]


def ping(uri: str, max_retries: int | None = None) -> None:
    """Raise MlflowException if a server does not answer, by default after MLflow's own retries."""
    if uri.startswith("http"):
        server = get_default_host_creds(uri)  # with the certificates and the user that MLflow takes
        http_request(server, "/health", "GET", max_retries=max_retries, timeout=SECONDS_TO_ANSWER)


@contextmanager
def given_up() -> Iterator[None]:
    """Ask a server that failed before only once, and for a second."""
    before = {name: os.environ[name] for name in (RETRIES, TIMEOUT) if name in os.environ}
    os.environ.update({RETRIES: "0", TIMEOUT: "1"})
    try:
        yield
    finally:
        for name in (RETRIES, TIMEOUT):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def best_effort(name: str, completed_by: str = SYNC) -> Iterator[None]:
    """Continue without MLflow if it fails, and print a line, once a run, that says how to complete it.

    Also prints a line if MLflow takes its time. A server that failed before is asked only for a second.
    """
    waiting = threading.Timer(SECONDS_TO_WAIT, print, [f"{name}: waiting for MLflow to log its run"])
    waiting.start()
    try:
        with given_up() if name in FAILED else nullcontext():
            yield
    except FAILURES as error:
        if name not in FAILED:
            line = f"{name}: its run is not complete ({one_line(error)}): {completed_by} completes it"
            print(printable(line), file=sys.stderr)
        FAILED.add(name)
    finally:
        waiting.cancel()
