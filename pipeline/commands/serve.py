"""Serve the champion, or any other model, with MLflow's server on this machine.

    python -m pipeline serve [--model models:/digits@champion] [--port 5001]

Checks that the port is free and that the model exists, and becomes `mlflow models serve`: see
docs/serving.md. Writes nothing.
"""

import os
import sys
from pathlib import Path

import click

from pipeline.commands import loaded_model
from pipeline.support.ports import check_free


@click.command()
@click.option("--model", metavar="URI", help="Any MLflow model; by default the champion.")
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True)
def main(model: str | None, port: int) -> None:
    """Serve a model with MLflow's server."""
    check_free(os.environ.get("MLFLOW_HOST", "127.0.0.1"), port)
    model = model or loaded_model.champion_uri()
    loaded_model.check(model)
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"  # where MLflow looks for its server
    command = [str(folder / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
    os.execv(command[0], [*command, "-p", str(port)])  # noqa: S606  # no shell
