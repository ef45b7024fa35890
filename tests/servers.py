"""Starting servers for tests, and stopping them with all that they started: any, MLflow's, Postgres."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import requests

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())  # its programs


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, below those that the system gives to clients."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
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
    """Run a server until the block ends; if it does not become ready, the test fails with its log."""
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
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            started = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGTERM)
            psutil.wait_procs(started, 20)  # one that is left may keep the port, and answer nobody
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    """Whether an address answers with success."""
    try:
        return requests.get(address, timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


@contextmanager
def http_server(
    command: str, path: str, folder: Path, environment: Mapping[str, str], log: Path, port: int = 0
) -> Iterator[str]:
    """Run a server, whose command has {port} for its port, once it answers at `path`; gives its address."""
    port = port or free_port()
    address, words = f"http://127.0.0.1:{port}", command.format(port=port).split()
    without_jobs = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # more processes
    with server(words, folder, without_jobs, log, lambda: answers(f"{address}/{path}")):
        yield address


@contextmanager
def mlflow_server(
    folder: Path, store: str, port: int = 0, artifacts: str = "artifacts", **more: str
) -> Iterator[str]:
    """Run `mlflow server` on a store, by default with its artifacts in `folder`; gives its address."""
    command = f"{Path(sys.executable).with_name('mlflow')} server --host 127.0.0.1 --port {{port}}"
    command += f" --workers 2 --backend-store-uri {store} --artifacts-destination {artifacts}"
    with http_server(command, "health", folder, os.environ | more, folder / "mlflow.log", port) as address:
        yield address


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 server with an empty `s3://bucket`; gives the environment of its clients."""
    command = f"{Path(sys.executable).with_name('moto_server')} -H 127.0.0.1 -p {{port}}"
    with http_server(command, "moto-api/", folder, os.environ, folder / "s3.log") as address:
        requests.put(f"{address}/bucket", timeout=60).raise_for_status()
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
        yield keys | {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres of its own; gives the URI of a database of it."""
    port = free_port()
    user = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]  # Postgres refuses to run as root
    with tempfile.TemporaryDirectory() as name:  # not in pytest's folder, which only this user may enter
        folder = Path(name)
        if user:
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
