"""A page to try the champion: drop an image or choose a test image, and see how it is classified.

    python -m pipeline demo [--model models:/digits@champion] [--port 8501]

Checks that the port is free and loads the model. Then serves pipeline/commands/demo_page.py with Streamlit,
which `make demo` installs, on this machine only, without network access. Reads what `classify` reads. Writes
nothing.
"""

from importlib.util import find_spec
from pathlib import Path

import click

from pipeline.commands import loaded_model
from pipeline.support.errors import PipelineError
from pipeline.support.ports import check_free

HOST = "127.0.0.1"
OPTIONS = {
    "server.address": HOST,
    "server.headless": "true",  # opens no browser, asks for no address
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "50",  # MB
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
}


@click.command()
@click.option("--model", metavar="URI", help="Any MLflow model; by default the champion.")
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
def main(model: str | None, port: int) -> None:
    """Serve a page to try a model on."""
    if find_spec("streamlit") is None:
        raise PipelineError("the page needs Streamlit, which is not installed: `make demo` installs it")
    check_free(HOST, port)
    uri = model or loaded_model.champion_uri()
    loaded_model.check(uri)
    print(f"demo: loading {uri}", flush=True)
    from streamlit.web import cli

    from pipeline.commands import grad_cam  # and TensorFlow

    grad_cam.load(uri)  # and the model, in the process that serves the page, before anybody waits for it
    page = str(Path(__file__).with_name("demo_page.py"))
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    print(f"demo: on http://{HOST}:{port}", flush=True)
    cli.main(["run", page, f"--server.port={port}", *options, "--", uri])
