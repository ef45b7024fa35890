"""Search for better settings of a variant (docs/search.md).

    python -m pipeline search VARIANT [--trials N] [--seeds N] [--jobs N] [--executor ray]

Optuna proposes settings, and stops trials that fall behind on validation images. The first trial has the
variant's own settings, as far as the ranges allow them. Each trial is a run in the experiment NAME-search,
under the run of the search. The same command resumes an interrupted search. Reads params.yaml, search.yaml
(the ranges) and data/prepared. Writes search/VARIANT/: all trials, figures, and the best trial as a block for
params.yaml, which it also prints.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import click
from rich.console import Console

from pipeline.commands.check import checked_params
from pipeline.commands.search import outcome
from pipeline.commands.search.ranges import read_ranges
from pipeline.commands.search.study import ENDED, Search, left, open_study, trials_left
from pipeline.commands.search.trial_runs import TrialRuns
from pipeline.commands.search.trials import Trainings, Trials
from pipeline.running import worker
from pipeline.running.job_queue import make_executor
from pipeline.running.view import View
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SEED, SingleInstance
from pipeline.support.paths import PREPARED, RECIPES, SEARCHES


@click.command(cls=SingleInstance)
@click.argument("variant")
@click.option("--trials", type=click.IntRange(1), default=40, show_default=True, help="How many settings.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of a trial.")
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the sampler.")
@click.option("--jobs", type=click.IntRange(1), help="Trials at a time; by default all that fit.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="Where they run.")
def main(
    variant: str, trials: int, seeds: int, sampler: str, seed: int, jobs: int | None, executor: str
) -> None:
    """Search for better settings of a variant that has ranges in search.yaml."""
    params = checked_params()
    # Trainings side by side are faster on one thread each than on several.
    params = params.model_copy(update={"training": params.training.model_copy(update={"threads": 1})})
    ranges = read_ranges(variant, params)
    check_inputs(PREPARED)
    mlflow_store.anchor(Path.cwd())  # since the trials run in another folder
    mlflow_store.check()
    run(Search(variant, params, ranges, trials, seeds, sampler, seed), jobs, executor)


def run(search: Search, slots: int | None, executor: str) -> None:
    """Run a search in its run, and write what it found."""
    experiment, name = f"{search.params.data.dataset}-search", f"search-{search.variant}"
    tags, again = search.tags(), "the same command"
    with mlflow_runs.training_run(experiment, name, tags, resumed=True, completed_by=again) as run_id:
        study, runs = open_study(search), TrialRuns(run_id, search)
        if number := left(study, search):
            trainings = Trainings(search)
            with worker.server(), own_folder(search.variant), View(Console(), number) as view:
                room = make_executor(executor, search.params, trainings.of(0, {}), slots)
                Trials(study, trainings, room, runs, view).run(trials_left(study, search))
        outcome.write(search, study)
        runs.complete(study.get_trials(deepcopy=False, states=ENDED))
        outcome.log(search, study)


@contextmanager
def own_folder(variant: str) -> Iterator[None]:
    """Work in a folder in which no other command finds the checkpoints and results of a search's trainings.

    It has links to the prepared data and the recipes, and is removed when the search is complete.
    """
    folder = SEARCHES / variant
    for path in (PREPARED, RECIPES):
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(path, link.parent))
    with chdir(folder):
        yield
    shutil.rmtree(folder)
