"""Make the previous champion champion again, and the champion the previous one.

    python -m pipeline rollback

Reads params.yaml (data), loads the previous champion, so that a damaged one is not made champion, and changes
the two aliases of the registered model.
"""

import click

from pipeline.commands import loaded_model
from pipeline.params import Params
from pipeline.support import mlflow_aliases, mlflow_store
from pipeline.support.errors import printable
from pipeline.support.locks import SingleInstance


@click.command(cls=SingleInstance)
def main() -> None:
    """Load the previous champion and swap the aliases."""
    name = Params.read().data.dataset
    mlflow_store.check()
    lines = mlflow_aliases.rollback(name, check=loaded_model.load_model)
    print("\n".join(map(printable, lines)))
