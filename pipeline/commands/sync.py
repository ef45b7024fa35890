"""Bring MLflow in line with DVC's files: log missing runs, evaluations, the report and the first champion.

    python -m pipeline sync

A stage that DVC restores from its cache trains nothing and so logs no run. This logs what is missing from
data/prepared, recipes, models, metrics, evaluation, selection.json and reports. The chosen model is promoted
only if there is no champion, as in an empty store. A champion whose files were deleted, in MLflow's pages or
by `mlflow gc`, is registered again. A model whose files contradict each other, or that is being trained, is
skipped with a line. It changes nothing that is there, so running it twice is safe.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from pipeline.commands import champion
from pipeline.core.arrays import read_arrays, read_facts
from pipeline.params import Params
from pipeline.running.complete_run import complete_run
from pipeline.shared import metrics
from pipeline.shared.checked_scores import checked_scores
from pipeline.shared.selection import read_selection
from pipeline.stages.promote.stage import promote_selection, restore
from pipeline.support import mlflow_aliases, mlflow_outputs, mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError, printable
from pipeline.support.integrity import check_inputs, is_edited
from pipeline.support.locks import SingleInstance, is_free
from pipeline.support.mlflow_registry import CHAMPION, version_at
from pipeline.support.model_files import ModelFiles, all_models, remove_leftovers
from pipeline.support.paths import (
    EVALUATION,
    METRICS,
    MODELS,
    PREDICTIONS,
    PREPARED,
    RECIPES,
    REPORTS,
    SELECTION,
)


@click.command(cls=SingleInstance)
def main() -> None:
    """Log to MLflow what it lacks."""
    synchronize()


def synchronize() -> None:
    """Log what is missing, and print a line for each thing and which model is champion."""
    params = Params.read()
    check_inputs(RECIPES, SELECTION, EVALUATION, METRICS, MODELS, PREDICTIONS, PREPARED, REPORTS)
    mlflow_store.check()
    facts = read_facts(PREPARED / "split")
    experiment = facts["name"]
    done = [line for files in all_models() for line in sync_run(files, facts, params)]
    done += [f"{name}: ended its run, which was killed" for name in mlflow_runs.end_killed(experiment)]
    removed = remove_leftovers(all_models(), params.variants)
    done += [f"{path}: removed, since params.yaml does not name it" for path in removed]
    with mlflow_aliases.one_at_a_time(experiment):
        done += mlflow_aliases.settle(experiment)
    done += promoted(experiment, params)
    if is_edited(REPORTS):
        done.append(f"{REPORTS}: skipped, since it was edited: run `dvc repro report`")
    elif mlflow_outputs.CARD.is_file():
        mlflow_outputs.log_report(experiment)
        mlflow_outputs.describe_versions(experiment)
    print("\n".join(f"sync: {printable(line)}" for line in done or ["nothing was missing"]))
    champion.show(experiment)


def promoted(name: str, params: Params) -> list[str]:
    """Register the models of both aliases again if their files were deleted; without a champion, promote the
    chosen model, if it was chosen by its own scores. Returns what was done, in lines."""
    try:
        done = restore(name, params)
        if SELECTION.is_file() and version_at(name, CHAMPION) is None:
            done += promote_selection(read_selection(), params)
    except PipelineError as error:
        return [f"not promoted: {error}"]
    return done


def sync_run(files: ModelFiles, facts: dict[str, Any], params: Params) -> Iterator[str]:
    """Log a trained model's run and evaluation if they are missing, and say why not if it is skipped."""
    if not is_free(f"train-{files.name}"):
        yield f"{files.name}: skipped, since it is being trained"
    elif files.model.is_file():
        try:
            yield from log_run(files, facts, params)
        except PipelineError as error:
            yield f"{files.name}: skipped: {error}"


def log_run(files: ModelFiles, facts: dict[str, Any], params: Params) -> Iterator[str]:
    """Log a trained model's run and evaluation if they are missing.

    Raises PipelineError if its record or its scores are not those of the model.
    """
    run = mlflow_runs.find_run(facts["name"], files.tags())
    diverged = files.record().divergence is not None
    if run is None or not (diverged or mlflow_runs.logged_model(run.info.run_id, files.name)):
        complete_run(files, restored="true")
        yield f"{files.name}: logged its run"
    if files.scores.is_file() and files.divergence() is None:
        images = {part: read_arrays(PREPARED / part)["images"] for part in ("validation", "test")}
        checked = partial(checked_scores, files, params.serving.temperature, metrics.scores)
        if mlflow_outputs.log_evaluation(files, checked, facts, images):
            yield f"{files.name}: logged its evaluation"
