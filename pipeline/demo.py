"""A page to try the champion on: drop an image or take a test image, and see what it makes of it.

    python -m pipeline.demo [--model models:/digits@champion] [--port 8501]

Serves pipeline/classification/demo_page.py with Streamlit, which `make demo` installs, on this machine only,
without network access. Reads what `pipeline.classify` reads. Writes nothing.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from pipeline.shared.errors import PipelineError, one_line_errors

OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",  # opens no browser, asks for no address
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "50",  # MB
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
}


@one_line_errors
def main() -> None:
    """Become Streamlit's server."""
    parser = argparse.ArgumentParser(description="Serve a page to try a model on.")
    parser.add_argument("--model", help="any MLflow model URI; default: the champion")
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")
    arguments = parser.parse_args()
    if find_spec("streamlit") is None:
        raise PipelineError("the page needs Streamlit, which is not installed: `make demo` installs it")
    page = str(Path(__file__).parent / "classification/demo_page.py")
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    command = ["-m", "streamlit", "run", page, f"--server.port={arguments.port}", *options]
    model = ["--", arguments.model] if arguments.model else []
    print(f"demo: on http://127.0.0.1:{arguments.port}", flush=True)
    os.execv(sys.executable, [sys.executable, *command, *model])  # noqa: S606 # nosec B606 # no shell


if __name__ == "__main__":
    main()
