"""Print which model is champion, since when and why, and what became of the model that was chosen last.

    python -m pipeline champion

Reads params.yaml (data), selection.json, and MLflow's registry with the run of the chosen model.
"""

import click

from pipeline.params import Params
from pipeline.shared.selection import Selection, read_selection
from pipeline.support import mlflow_aliases, mlflow_registry, mlflow_runs, mlflow_store
from pipeline.support.errors import printable
from pipeline.support.mlflow_registry import CHAMPION, DIGEST
from pipeline.support.paths import SELECTION


@click.command()
def main() -> None:
    """Print the champion."""
    show(Params.read().data.dataset)


def show(name: str) -> None:
    """Print the champion of a registered model, and the chosen model if it is another one."""
    mlflow_store.check()
    champion = mlflow_registry.version_at(name, CHAMPION)
    digest = champion.tags.get(DIGEST) if champion else None
    if champion is None:
        print(f"{name}: there is no champion")
    else:
        model = "-".join(champion.tags.get(key, "unknown") for key in ("variant", "seed"))
        last, entry = next(reversed(mlflow_registry.history(name).items()), (None, None))
        since = "an unknown time: its alias was set by hand"
        if entry and last == digest:
            since = f"{entry.since} UTC: {entry.why}"
        print(printable(f"{name}: version {champion.version} is champion, {model}, since {since}"))
        if mlflow_aliases.is_interrupted(name):
            print(printable(f"{name}: a promotion or rollback was interrupted: `make sync` completes it"))
    if SELECTION.is_file() and (selection := read_selection()).model_digest != digest:
        print(printable(f"{name}: {verdict(name, selection)}"))


def verdict(name: str, selection: Selection) -> str:
    """What became of the chosen model, by the tag that `promote` wrote on its run."""
    tags = {DIGEST: selection.model_digest, "variant": selection.variant, "seed": str(selection.seed)}
    run = mlflow_runs.find_run(name, tags)
    found = run.data.tags.get("promotion", "") if run else ""
    chosen = f"the chosen model, {selection.files.name},"
    if found.startswith("refused: "):
        return f"{chosen} was refused: {found.removeprefix('refused: ')}"
    return f"{chosen} is not champion: `make promote` promotes it or says why not"
