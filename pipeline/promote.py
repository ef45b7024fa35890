"""Choose the champion on validation data, and promote it in MLflow's registry.

    python -m pipeline.promote [--force]

Chooses the variant with the highest mean validation accuracy, and of it the best seed. Reads params.yaml
(promotion, serving), recipes/_index.json, data/prepared/{split,validation}, metrics and predictions, with
which metrics must agree. Writes champion.json, the decision. The registry's gate may still refuse the model:
see pipeline/champion/gate.py.
"""

import argparse
from typing import Any

from pipeline.champion import registry
from pipeline.champion.gate import Candidate
from pipeline.champion.repair import repair
from pipeline.champion.selection import choose, read_scores
from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.scoring.stored import check_scores
from pipeline.shared.arrays import read_arrays, read_facts, write_json
from pipeline.shared.errors import one_line_errors
from pipeline.shared.load_params import load_params
from pipeline.shared.lock import single_instance
from pipeline.shared.paths import CHAMPION, METRICS, PREDICTIONS, PREPARED, RECIPES
from pipeline.shared.trained import Trained, all_trained


@one_line_errors
@single_instance
def main() -> None:
    """Decide, write the decision and promote."""
    parser = argparse.ArgumentParser(description="Choose and promote the champion.")
    parser.add_argument("--force", action="store_true", help="do not compare it with the current champion")
    force = parser.parse_args().force
    params = load_params(Params)
    check_inputs(METRICS, PREDICTIONS, PREPARED / "split", PREPARED / "validation", RECIPES)
    store.check()
    models = all_trained()
    check_scores(models)
    decision = choose(read_scores(models))
    write_json(CHAMPION, decision)
    for line in repair(params.data.dataset):
        print(f"promote: {line}")
    print(f"promote: {promote_in_registry(decision, params, force)}")


def promote_in_registry(decision: dict[str, Any], params: Params, force: bool = False) -> str:
    """Promote the chosen model in the registry; returns what was done, in one line."""
    trained = Trained(decision["variant"], decision["seed"])
    check_inputs(trained.model, trained.scores, PREPARED / "split", PREPARED / "validation")
    check_scores([trained])
    scores, facts = trained.metrics(), read_facts(PREPARED / "split")
    run = tracking.find_run(facts["name"], trained.tags())
    if run is None:
        return f"{trained.name} has no MLflow run (its training came from DVC's cache): run `make sync`"
    candidate = Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id,
        model=trained.model,
        example=read_arrays(PREPARED / "validation")["images"][0],
        classes=facts["classes"],
        batch_limit=params.serving.batch_limit,
        tags=trained.tags() | {key: facts[key] for key in ("data_digest", "split_digest")},
        validation_accuracy=scores["validation"]["accuracy"],
        test_accuracy=scores["test"]["accuracy"],
    )
    return registry.promote(candidate, params.promotion.margin, force)


if __name__ == "__main__":
    main()
