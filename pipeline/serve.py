"""Serve the champion, or any other model, with MLflow's server on this machine.

    python -m pipeline.serve [--model models:/digits@champion] [--port 5001]

Checks that the model is there, and becomes `mlflow models serve`: see docs/serving.md. Writes nothing.
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.classification import inference
from pipeline.shared.errors import one_line_errors


@one_line_errors
def main() -> None:
    """Become MLflow's server."""
    parser = argparse.ArgumentParser(description="Serve a model.")
    parser.add_argument("--model", help="any MLflow model URI; default: the champion")
    parser.add_argument("--port", type=int, default=5001, help="default: 5001")
    arguments = parser.parse_args()
    model = arguments.model or inference.champion_uri()
    inference.check(model)
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"  # where MLflow looks for its server
    command = [str(folder / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
    os.execv(command[0], [*command, "-p", str(arguments.port)])  # noqa: S606  # no shell


if __name__ == "__main__":
    main()
