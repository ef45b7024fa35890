"""Choose the champion on validation data, and promote it in MLflow's registry.

    python -m pipeline promote [--force]

Chooses the variant with the highest mean validation accuracy, and its best seed. The registry's gate
may refuse it: see gate.py. Reads params.yaml (promotion, serving), recipes/_index.json,
data/prepared/{split,validation}, metrics, the predictions (which must agree with them) and the chosen model.
Writes champion.json: the candidate, `promoted`, the `reason`, and the champion that stays if it was refused.
"""

from typing import Any

import click

from pipeline.core.arrays import read_arrays, read_facts, write_json
from pipeline.params import Params
from pipeline.shared.selection import choose, read_scores
from pipeline.shared.stored import check_scores, read_probabilities, views_of
from pipeline.stages.promote import registry
from pipeline.stages.promote.gate import Candidate
from pipeline.stages.promote.registry import Outcome
from pipeline.stages.promote.repair import repair
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import CHAMPION, METRICS, PREDICTIONS, PREPARED, RECIPES

PARTS = ("split", "validation")
CHECKED = 32  # validation images whose served answers are compared with the predictions


@click.command(cls=SingleInstance)
@click.option("--force", is_flag=True, help="Do not compare it with the current champion.")
def main(force: bool) -> None:
    """Make the best model champion."""
    params = Params.read()
    check_inputs(METRICS, PREDICTIONS, RECIPES, *(PREPARED / part for part in PARTS))
    mlflow_store.check()
    lines = repair(params.data.dataset)
    models = all_models()
    check_scores(models)
    chosen = choose(read_scores(models))
    outcome = promote_in_registry(chosen, params, force)
    write_json(CHAMPION, chosen | outcome.as_json())
    print("\n".join(lines + outcome.lines))


def promote_in_registry(chosen: dict[str, Any], params: Params, force: bool = False) -> Outcome:
    """Promote the chosen model in the registry, if the gate accepts it."""
    files = ModelFiles(chosen["variant"], chosen["seed"])
    check_inputs(files.model, files.predictions, files.scores, *(PREPARED / part for part in PARTS))
    check_scores([files])
    scores, facts = files.metrics(), read_facts(PREPARED / "split")
    run = mlflow_runs.find_run(facts["name"], files.tags())
    logged = mlflow_runs.logged_model(run.info.run_id, files.name) if run else None
    some = slice(min(CHECKED, params.serving.batch_limit))
    views = views_of(files)
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
        validation_accuracy=scores["validation"]["accuracy"],
        test_accuracy=scores["test"]["accuracy"],
        mean_validation_accuracy=chosen["mean_validation_accuracy"],
        seeds=chosen["seeds"],
    )
    return registry.promote(candidate, params.promotion.margin, force)
