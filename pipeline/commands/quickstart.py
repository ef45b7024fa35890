"""The whole pipeline in minutes, on scikit-learn's handwritten digits, in a folder of its own.

    python -m pipeline quickstart

Copies the pipeline of this checkout to quickstart/, with quickstart.yaml as its params.yaml, runs all stages
there, and prints what to look at next. Its runs and its model go to this checkout's MLflow store; its report
and metrics stay in quickstart/. Nothing else is touched.
"""

from pathlib import Path

import click

from pipeline.commands import job_folder
from pipeline.support.locks import SingleInstance

FOLDER = Path("quickstart")
PARAMS = Path(__file__).with_name("quickstart.yaml")
THE_REAL_JOB = """\
the real job    make repro
                  [dim]CIFAR-10, all variants, some hours[/]"""


@click.command(cls=SingleInstance)
def main() -> None:
    """Copy, run, synchronize and print what is next."""
    job_folder.run(FOLDER, PARAMS.read_text(), image="digit.png", last=THE_REAL_JOB)
