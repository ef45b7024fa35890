"""Look at runs and models on MLflow's page.

    python -m pipeline ui [--port 5000]

Prints the address of each experiment's runs, since the page opens on another view, and becomes `mlflow ui`.
If the runs are on a tracking server, whose page shows them, it prints the addresses and ends.
"""

import os
import sys
from pathlib import Path

import click
import mlflow

from pipeline.support import mlflow_store
from pipeline.support.errors import printable
from pipeline.support.ports import check_free

RUNS = "{}/#/experiments/{}/runs?compareRunsMode=CHART&workflowType=machine_learning"


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def main(port: int) -> None:
    """Serve MLflow's page."""
    host = os.environ.get("MLFLOW_HOST", "127.0.0.1")
    mlflow_store.check()
    store = mlflow.get_tracking_uri()
    if store.startswith("http"):
        print_addresses(store.rstrip("/"))
        return
    check_free(host, port)
    print_addresses(f"http://{host}:{port}")
    program = str(Path(sys.executable).with_name("mlflow"))
    os.execv(program, [program, "ui", "--backend-store-uri", store, "--host", host, "--port", str(port)])  # noqa: S606  # no shell


def print_addresses(server: str) -> None:
    """Print the address of the runs of each experiment that has some."""
    for experiment in mlflow.search_experiments():
        if mlflow.MlflowClient().search_runs([experiment.experiment_id], max_results=1):
            address = RUNS.format(server, experiment.experiment_id)
            print(f"ui: the runs of {printable(experiment.name)}: {address}", flush=True)
