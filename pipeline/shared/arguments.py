"""The arguments that several commands have in common."""

import argparse

from pipeline.shared.errors import PipelineError
from pipeline.shared.trained import Trained


def no_arguments(doc: str | None) -> None:
    """Refuse arguments, and print the first line of a command's docstring if its help is asked for."""
    argparse.ArgumentParser(description=(doc or "").partition("\n")[0]).parse_args()


def variant_and_seed(description: str) -> Trained:
    """The model that a command's arguments VARIANT and SEED name. Raises PipelineError if SEED is invalid."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("variant", help="a key of `variants` or `finetune.variants` in params.yaml")
    parser.add_argument("seed", type=int, help="seeds the weights, the order of the images and the dropout")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < 2**31:
        raise PipelineError(f"SEED: must be from 0 to {2**31 - 1}; received {arguments.seed}")
    return Trained(arguments.variant, arguments.seed)
