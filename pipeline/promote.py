"""Choose the champion on validation data, and promote it in MLflow's registry.

    python -m pipeline.promote [--force]

Of the variants and seeds that params.yaml names, the variant with the highest mean validation accuracy,
and of it the best seed. Reads params.yaml (promotion, seeds, serving, variants), data/prepared/split and
metrics. Writes champion.json, the decision. The registry's gate may still refuse it: see registry.py.
"""

import argparse
from typing import Any

from pipeline.champion import registry
from pipeline.champion.gate import Candidate
from pipeline.champion.selection import choose, model_tags, read_scores
from pipeline.data.arrays import read_arrays, read_facts, write_json
from pipeline.errors import one_line_errors
from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.paths import CHAMPION, METRICS, MODELS, PREPARED
from pipeline.records import store, tracking
from pipeline.running.lock import alone
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Decide, write the decision and promote."""
    parser = argparse.ArgumentParser(description="Choose and promote the champion.")
    parser.add_argument("--force", action="store_true", help="whatever the standing champion scored")
    force = parser.parse_args().force
    params = read_params(Params)
    check_inputs(METRICS)
    store.check()
    decision = choose(read_scores(params.trained_models))
    write_json(CHAMPION, decision)
    print(f"promote: {promote_in_registry(decision, params, force)}")


def promote_in_registry(decision: dict[str, Any], params: Params, force: bool = False) -> str:
    """Hand the chosen model to the registry; what it did, in one line."""
    name = f"{decision['variant']}-{decision['seed']}"
    model = MODELS / name / "model.keras"
    check_inputs(model, PREPARED / "split", PREPARED / "validation")
    facts = read_facts(PREPARED / "split")
    tags = model_tags(name)
    run = tracking.find_run(facts["name"], tags)
    if run is None:
        return f"{name} has no MLflow run (its training came from DVC's cache); `make sync` makes one"
    candidate = Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id,
        model=model,
        example=read_arrays(PREPARED / "validation")["images"][0],
        classes=facts["classes"],
        batch_limit=params.serving.batch_limit,
        tags=tags | {key: facts[key] for key in ("data_digest", "split_digest")},
        validation_accuracy=decision["validation_accuracy"],
        test_accuracy=decision["test_accuracy"],
    )
    return registry.promote(candidate, params.promotion.margin, force)


if __name__ == "__main__":
    main()
