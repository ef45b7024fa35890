"""Starting servers for tests, and stopping them with all that they started: any, MLflow's, Postgres."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())  # its programs


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests in a thread until the block ends; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@contextmanager
def server(
    command: list[str], folder: Path, environment: Mapping[str, str], log: Path, ready: Callable[[], bool]
) -> Iterator[None]:
    """Run a server until the block ends; the test fails with its log where it does not get ready."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(20)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def answers(address: str) -> bool:
    """Whether an address answers with success."""
    try:
        return requests.get(address, timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


@contextmanager
def mlflow_server(folder: Path, port: int, store: str, *more: str) -> Iterator[str]:
    """Run `mlflow server` on a store, its artifacts in `folder`; gives its address."""
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", store, "--workers", "2"]
    command += ["--artifacts-destination", str(folder / "artifacts"), *more]
    log = folder / "mlflow.log"
    with server(command, folder, os.environ, log, lambda: answers(f"{address}/health")):
        yield address


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a Postgres of its own in `folder`; gives the URI of a database of it."""
    port = free_port()
    user = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]  # Postgres refuses to run as root
    if user:
        for path in (folder, *folder.parents[:3]):  # pytest's own, with pytest-xdist one more
            path.chmod(path.stat().st_mode | 0o055)
        shutil.chown(folder, pwd.getpwnam("postgres").pw_uid)
    initdb = [str(POSTGRES / "initdb"), "-D", str(folder / "data"), "-U", "mlflow", "--auth=trust"]
    subprocess.run([*user, *initdb], check=True, capture_output=True)
    command = [*user, str(POSTGRES / "postgres"), "-D", str(folder / "data"), "-k", str(folder)]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    probe = [str(POSTGRES / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]

    def is_ready() -> bool:
        return subprocess.run(probe, capture_output=True).returncode == 0

    with server(command, folder, os.environ, folder / "postgres.log", is_ready):
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
