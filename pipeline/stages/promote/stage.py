"""Promote the chosen model in MLflow's registry.

    python -m pipeline promote [--force]

Registers the model that `select` chose and makes it champion, unless the gate refuses it: see gate.py. Reads
params.yaml (promotion, serving), selection.json, data/prepared/{split,validation}, and the chosen model with
its predictions. Describes its version by the model card, if `report` has
written it. Writes no file: the registry alone says what is served.
"""

import click

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.params import Params
from pipeline.shared.selection import Selection, read_selection
from pipeline.shared.stored_probabilities import read_probabilities, views_of
from pipeline.stages.promote.gate import Candidate
from pipeline.stages.promote.promotion import promote
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.mlflow_outputs import describe_versions
from pipeline.support.paths import PREPARED, SELECTION

CHECKED = 32  # validation images whose served answers are compared with the predictions


@click.command(cls=SingleInstance)
@click.option(
    "--force", is_flag=True, help="Also a former champion, or one that is not better than the champion."
)
def main(force: bool) -> None:
    """Make the chosen model champion."""
    params = Params.read()
    mlflow_store.check()
    check_inputs(SELECTION)
    print("\n".join(promote_selection(read_selection(), params, force)))
    describe_versions(params.data.dataset)


def promote_selection(selection: Selection, params: Params, force: bool = False) -> list[str]:
    """Make the chosen model champion, if the gate accepts it. Returns what was done, in lines.

    Raises PipelineError if the files are not of the model that was chosen.
    """
    files = selection.files
    check_inputs(files.model, files.predictions, PREPARED / "split", PREPARED / "validation")
    if files.tags()["model_digest"] != selection.model_digest:
        raise PipelineError(f"{files.model}: is not the model that was chosen: run `dvc repro select`")
    facts, views = read_facts(PREPARED / "split"), views_of(files)
    run = mlflow_runs.find_run(facts["name"], files.tags())
    logged = mlflow_runs.logged_model(run.info.run_id, files.name) if run else None
    some = slice(min(CHECKED, params.serving.batch_limit))
    candidate = Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id if run else None,
        model_id=logged.model_id if logged else None,
        model=files.model,
        images=read_arrays(PREPARED / "validation")["images"][some],
        probabilities=read_probabilities(files, "validation", views)[some],
        classes=facts["classes"],
        batch_limit=params.serving.batch_limit,
        views=views,
        tags=files.tags() | {key: facts[key] for key in ("data_digest", "split_digest")},
        validation_accuracy=selection.validation_accuracy,
        test_accuracy=selection.test_accuracy,
        mean_validation_accuracy=selection.mean_validation_accuracy,
        seeds=selection.seeds,
    )
    return promote(candidate, params.promotion.margin, force)
