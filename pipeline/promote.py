"""Choose the champion on validation data, and promote it in MLflow's registry.

    python -m pipeline.promote [--force]

Of the variants and seeds that params.yaml names, the variant with the highest mean validation accuracy,
and of it the best seed. Reads params.yaml (promotion, seeds, variants), data/prepared/split and metrics.
Writes champion.json, the decision. The registry's gate may still refuse the champion: see registry.py.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import registry, tracking
from pipeline.arrays import file_digest, read_arrays, read_facts, write_json
from pipeline.errors import one_line_errors
from pipeline.hyperparameters import read_params
from pipeline.params import Params
from pipeline.registry import Candidate

PREPARED = Path("data/prepared")
METRICS = Path("metrics")
MODELS = Path("models")
CHAMPION = Path("champion.json")


@one_line_errors
def main() -> None:
    """Decide, write the decision and promote."""
    parser = argparse.ArgumentParser(description="Choose and promote the champion.")
    parser.add_argument("--force", action="store_true", help="whatever the standing champion scored")
    force = parser.parse_args().force
    params = read_params(Params)
    decision = choose(read_scores(params.trained_models))
    write_json(CHAMPION, decision)
    print(f"promote: {promote_in_registry(decision, params.promotion.margin, force)}")


def read_scores(trained: list[tuple[str, int]]) -> pd.DataFrame:
    """A row for each of these (variant, seed): variant, seed, validation_accuracy, test_accuracy.

    Metrics of variants that params.yaml no longer names stay on disk; they are not read.
    """
    rows = []
    for variant, seed in trained:
        scores = json.loads((METRICS / f"{variant}-{seed}.json").read_text())
        accuracies = {f"{part}_accuracy": scores[part]["accuracy"] for part in ("validation", "test")}
        rows.append({"variant": variant, "seed": seed} | accuracies)
    return pd.DataFrame(rows)


def choose(scores: pd.DataFrame) -> dict[str, Any]:
    """The champion: best mean validation accuracy of a variant over its seeds, then its best seed.

    Among equals the first in the order of params.yaml.
    """
    means = scores.groupby("variant", sort=False)["validation_accuracy"].mean()
    seeds = scores[scores["variant"] == means.idxmax()]
    best = seeds.sort_values("validation_accuracy", ascending=False, kind="stable").iloc[0]
    return {
        "variant": str(best["variant"]),
        "seed": int(best["seed"]),
        "validation_accuracy": float(best["validation_accuracy"]),
        "mean_validation_accuracy": float(means.max()),
        "seeds": len(seeds),
        "test_accuracy": float(best["test_accuracy"]),
        "runner_up": runner_up(means),
    }


def runner_up(means: pd.Series) -> dict[str, Any] | None:
    """The second-best variant and its mean validation accuracy; None where there is only one."""
    others = means.drop(means.idxmax())
    if others.empty:
        return None
    return {"variant": str(others.idxmax()), "mean_validation_accuracy": float(others.max())}


def promote_in_registry(decision: dict[str, Any], margin: float, force: bool = False) -> str:
    """Hand the chosen model to the registry; what it did, in one line."""
    facts = read_facts(PREPARED / "split")
    name = f"{decision['variant']}-{decision['seed']}"
    model = MODELS / name / "model.keras"
    tags = {"variant": decision["variant"], "seed": str(decision["seed"])}
    tags |= {"model_digest": file_digest(model)}
    run = tracking.find_run(facts["name"], tags)
    if run is None:
        return f"{name} has no MLflow run (its training came from DVC's cache); `make sync` makes one"
    candidate = Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id,
        model=model,
        example=read_arrays(PREPARED / "validation")["images"][0],
        classes=facts["classes"],
        tags=tags | {key: facts[key] for key in ("data_digest", "split_digest")},
        validation_accuracy=decision["validation_accuracy"],
        test_accuracy=decision["test_accuracy"],
    )
    return registry.promote(candidate, margin, force)


if __name__ == "__main__":
    main()
