"""Choose the champion on validation data, and promote it in MLflow's registry.

    python -m pipeline.promote [--force]

Chooses the variant with the highest mean validation accuracy, and its best seed. The registry's gate
may refuse it: see pipeline/champion/gate.py. Reads params.yaml (promotion, serving), recipes/_index.json,
data/prepared/{split,validation}, metrics, the predictions (which must agree with them) and the chosen model.
Writes champion.json: the candidate, `promoted`, the `reason`, and the champion that stays if it was refused.
"""

import argparse
from typing import Any

from pipeline.champion import registry
from pipeline.champion.gate import Candidate
from pipeline.champion.registry import Outcome
from pipeline.champion.repair import repair
from pipeline.champion.selection import choose, read_scores
from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.scoring.stored import check_scores, read_probabilities, views_of
from pipeline.shared.arrays import read_arrays, read_facts, write_json
from pipeline.shared.lock import command
from pipeline.shared.paths import CHAMPION, METRICS, PREDICTIONS, PREPARED, RECIPES
from pipeline.shared.trained import Trained, all_trained

PARTS = ("split", "validation")
CHECKED = 32  # validation images whose served answers are compared with the predictions


@command
def main() -> None:
    """Choose, promote and write what was decided."""
    parser = argparse.ArgumentParser(description="Choose and promote the champion.")
    parser.add_argument("--force", action="store_true", help="do not compare it with the current champion")
    force = parser.parse_args().force
    params = Params.read()
    check_inputs(METRICS, PREDICTIONS, RECIPES, *(PREPARED / part for part in PARTS))
    store.check()
    lines = repair(params.data.dataset)
    models = all_trained()
    check_scores(models)
    chosen = choose(read_scores(models))
    outcome = promote_in_registry(chosen, params, force)
    write_json(CHAMPION, chosen | outcome.as_json())
    print("\n".join(lines + outcome.lines))


def promote_in_registry(chosen: dict[str, Any], params: Params, force: bool = False) -> Outcome:
    """Promote the chosen model in the registry, if the gate accepts it."""
    trained = Trained(chosen["variant"], chosen["seed"])
    check_inputs(trained.model, trained.predictions, trained.scores, *(PREPARED / part for part in PARTS))
    check_scores([trained])
    scores, facts = trained.metrics(), read_facts(PREPARED / "split")
    run = tracking.find_run(facts["name"], trained.tags())
    logged = tracking.logged_model(run.info.run_id, trained.name) if run else None
    some = slice(min(CHECKED, params.serving.batch_limit))
    views = views_of(trained)
    candidate = Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id if run else None,
        model_id=logged.model_id if logged else None,
        model=trained.model,
        images=read_arrays(PREPARED / "validation")["images"][some],
        probabilities=read_probabilities(trained, "validation", views)[some],
        classes=facts["classes"],
        batch_limit=params.serving.batch_limit,
        views=views,
        tags=trained.tags() | {key: facts[key] for key in ("data_digest", "split_digest")},
        validation_accuracy=scores["validation"]["accuracy"],
        test_accuracy=scores["test"]["accuracy"],
        mean_validation_accuracy=chosen["mean_validation_accuracy"],
        seeds=chosen["seeds"],
    )
    return registry.promote(candidate, params.promotion.margin, force)


if __name__ == "__main__":
    main()
