"""Serve the champion, or any other model, with MLflow's server on this machine.

    python -m pipeline serve [--model models:/digits@champion] [--port 5001]

Checks that the model is there, and becomes `mlflow models serve`: see docs/serving.md. Writes nothing.
"""

import os
import sys
from pathlib import Path

import click

from pipeline.commands import loaded_model


@click.command()
@click.option("--model", metavar="URI", help="Any MLflow model; by default the champion.")
@click.option("--port", type=int, default=5001, show_default=True)
def main(model: str | None, port: int) -> None:
    """Serve a model with MLflow's server."""
    model = model or loaded_model.champion_uri()
    loaded_model.check(model)
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"  # where MLflow looks for its server
    command = [str(folder / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
    os.execv(command[0], [*command, "-p", str(port)])  # noqa: S606  # no shell
