"""Check params.yaml, the versions that it names, and what its variants name and combine.

    python -m pipeline check [VARIANT]

Reads params.yaml and, with a VARIANT, whose settings are to be searched, search.yaml. Writes nothing. Needs
no TensorFlow: the stage `recipes` finds out whether Keras takes a value, and a network the images.
"""

from pathlib import Path

import click

from pipeline.core.recipe import check_versions
from pipeline.params import Params
from pipeline.stages.recipes.settings_check import check_settings
from pipeline.support.paths import PARAMS
from pipeline.support.words import count


@click.command()
@click.argument("variant", required=False)
def main(variant: str | None) -> None:
    """Check params.yaml, and the ranges in search.yaml for a VARIANT."""
    params = checked_params()
    if variant:
        from pipeline.commands.search.ranges import read_ranges  # Optuna

        read_ranges(variant, params)
    print(f"{PARAMS}: OK: {count(len(params.models), 'training')} on {params.data.dataset}")


def checked_params(path: Path = PARAMS) -> Params:
    """The content of params.yaml. Raises PipelineError if something is wrong with it."""
    params = Params.read(path)
    check_versions(params.training.versions, f"{path}: training")
    for key, block in params.blocks.items():
        check_settings(f"{path}: {key}", block)
    return params
