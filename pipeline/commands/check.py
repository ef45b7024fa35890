"""Check params.yaml and the versions that it names.

    python -m pipeline check

Reads params.yaml. Writes nothing.
"""

import click

from pipeline.params import Params
from pipeline.support.paths import PARAMS


@click.command()
def main() -> None:
    """Check params.yaml."""
    params = Params.read()
    params.training.check_versions()
    print(f"{PARAMS}: OK: {len(params.models)} trainings on {params.data.dataset}")
