"""Completes the environment of every command, before it imports anything else.

Turns telemetry off, and lets a user id without a name or a home run the pipeline, as in containers.
"""

import os
import sys
from pathlib import Path

from pipeline.support.paths import WORK

# The libraries' switches of what they would send to their makers. Who sets one decides.
TELEMETRY = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


def complete() -> None:
    """Set what the environment lacks: here, and so in each process that is started from here."""
    defaults = TELEMETRY | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the user id has no entry in the system's list
        home = WORK.absolute() / "home"
        home.mkdir(parents=True, exist_ok=True)
        defaults["HOME"] = str(home)
    if not os.access(home, os.W_OK):
        defaults["MPLCONFIGDIR"] = str(WORK.absolute() / "matplotlib")
    if not {"LOGNAME", "USER", "LNAME", "USERNAME"} & os.environ.keys():
        defaults["LOGNAME"] = f"uid-{os.getuid()}"  # or `getpass.getuser` fails for such an id
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not if a caller collects what is printed
            stream.reconfigure(errors="backslashreplace")  # of what the encoding lacks
