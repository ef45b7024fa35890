"""Make MLflow tell what DVC's files hold: missing runs, evaluations, report and champion.

    python -m pipeline.sync

A stage that DVC restores from its cache trains nothing and so makes no run. This recreates what is
missing from params.yaml, data/prepared, models, metrics, evaluation, champion.json and reports. What is
there is left alone, so running it twice changes nothing.
"""

import json

import mlflow
import pandas as pd

from pipeline import models, registry, store, tracking
from pipeline.arrays import file_digest, read_arrays, read_facts
from pipeline.backend import keras
from pipeline.errors import one_line_errors
from pipeline.evaluate import log_evaluation
from pipeline.hyperparameters import read_params
from pipeline.params import Params
from pipeline.paths import CHAMPION, METRICS, MODELS, PREPARED, REPORTS
from pipeline.promote import promote_in_registry
from pipeline.report import log_report
from pipeline.selection import divergence, model_tags
from pipeline.train import log_training
from pipeline.training import Images


@one_line_errors
def main() -> None:
    """Recreate what is missing, with a line for each thing that was."""
    params = read_params(Params)
    store.check()
    facts = read_facts(PREPARED / "split")
    done = [
        line
        for variant, seed in params.trained_models
        for line in sync_run(f"{variant}-{seed}", facts["name"])
    ]
    if (REPORTS / "report.md").is_file():
        log_report(facts["name"], (REPORTS / "report.md").read_text())
    if CHAMPION.is_file():
        done += sync_champion(facts["name"], params)
    print("\n".join(f"sync: {line}" for line in done or ["nothing was missing"]))


def sync_run(name: str, experiment: str) -> list[str]:
    """Recreate the run of models/VARIANT-SEED, and its evaluation, where they are missing."""
    if not (MODELS / name / "training.json").is_file():
        return []
    done = []
    if tracking.find_run(experiment, model_tags(name)) is None:
        recreate_run(name, experiment)
        done.append(f"{name}: recreated its run")
    run = tracking.find_run(experiment, model_tags(name))
    scored = (METRICS / f"{name}.json").is_file() and divergence(name) is None
    if run is not None and scored and "test/accuracy" not in run.data.metrics and log_evaluation(name):
        done.append(f"{name}: logged its evaluation")
    return done


def recreate_run(name: str, experiment: str) -> None:
    """A run as training makes it, from the files that the training left."""
    folder = MODELS / name
    record = tracking.read_training(folder)
    model = models.load(folder / "model.keras")
    train, validation = (Images(**read_arrays(PREPARED / part)) for part in ("train", "validation"))
    with tracking.training_run(experiment, name, record["tags"] | {"recreated": "true"}):
        for row in pd.read_csv(folder / "history.csv").to_dict("records"):
            epoch = int(row.pop("epoch"))
            mlflow.log_metrics({str(key): float(value) for key, value in row.items()}, step=epoch - 1)
        mlflow.log_text(summary(model), "model_summary.txt")
        log_training(folder, model, train.first(record["params"].get("training_images")), validation)


def sync_champion(name: str, params: Params) -> list[str]:
    """Promote the decision's model where the registry has no champion or has never seen this model.

    A version that was rolled back stays rolled back.
    """
    decision = json.loads(CHAMPION.read_text())
    model = MODELS / f"{decision['variant']}-{decision['seed']}" / "model.keras"
    known = registry.known_version(name, {"model_digest": file_digest(model)})
    if known is not None and registry.version_at(name, registry.CHAMPION) is not None:
        return []
    return [promote_in_registry(decision, params)]


def summary(model: keras.Model) -> str:
    """The table of layers, shapes and parameters that Keras prints."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
