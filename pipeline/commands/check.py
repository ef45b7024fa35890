"""Check params.yaml and the versions that it names.

    python -m pipeline check

Reads params.yaml. Writes nothing.
"""

import click

from pipeline.core.recipe import check_versions
from pipeline.params import Params
from pipeline.support.paths import PARAMS


@click.command()
def main() -> None:
    """Check params.yaml."""
    params = Params.read()
    check_versions(params.training.versions, f"{PARAMS}: training")
    print(f"{PARAMS}: OK: {len(params.models)} trainings on {params.data.dataset}")
