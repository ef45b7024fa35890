"""Train one variant with one seed, in an MLflow run of its own.

    python -m pipeline.train VARIANT SEED

Reads recipes/VARIANT.json, data/prepared/{split,train,validation} and, for a fine-tuned variant, the model
that it starts from. Writes models/VARIANT-SEED/: `model.keras`, which is scored and served; `history.csv`,
a row for each epoch; `training.json`, its tags, parameters and results. If a loss becomes infinite or NaN,
the training ends normally with the status `diverged`, which is reported and never promoted.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml

from pipeline.integrity import check_inputs
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from pipeline.learning.hardware import make_deterministic
from pipeline.learning.recipe import Recipe
from pipeline.records import recording, store, tracking
from pipeline.shared.arrays import digest_of, file_digest, read_arrays, read_facts, write_json
from pipeline.shared.errors import one_line_errors
from pipeline.shared.lock import single_instance
from pipeline.shared.paths import PREPARED, RECIPES
from pipeline.shared.trained import Trained, trained_from_arguments
from pipeline.training import fitting
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.fitting import Fit, Images
from pipeline.training.layers import without_training_only
from pipeline.training.twin import Twin

PARTS = ("split", "train", "validation")


@one_line_errors
@single_instance
def main() -> None:
    """Train in an MLflow run, score the weights that are kept, write and log them."""
    trained = trained_from_arguments("Train one variant with one seed.")
    check_inputs(RECIPES, *(PREPARED / part for part in PARTS))
    recipe = Recipe.read(trained.variant)
    recipe.check_machine()
    facts = read_facts(PREPARED / "split")
    train, validation = (Images(**read_arrays(PREPARED / part)) for part in PARTS[1:])
    train = train.first(recipe.training_images)
    make_deterministic(trained.seed, recipe.threads, recipe.share_batches)
    model, base = build(recipe, trained.seed)
    store.check()  # last, since it creates a missing store, which a refused training must not do

    tags = origin(trained, recipe, base, facts)
    checkpoint = Checkpoint(trained.checkpoint, digest_of(tags))
    resumed = checkpoint.read() is not None
    with tracking.training_run(facts["name"], trained.name, tags, resumed) as run_id:
        watching = [log_epochs()] if resumed else []
        mlflow.keras.autolog(log_models=False, log_datasets=False, disable=resumed)
        twin = make_twin(model, recipe, train, validation)
        fit = fitting.fit(twin, recipe, train, validation, trained.seed, *watching, checkpoint=checkpoint)
        model.set_weights(twin.get_weights())
        model = without_training_only(model)
        record = make_record(tags, recipe, fit, measures(model, recipe, fit, validation))
        write(trained, model, fit.history, record)
        with tracking.best_effort(trained.name):
            recording.record(trained, model, train, validation, run_id)
            mlflow.log_metrics({"wall_seconds": fit.wall_seconds, "cpu_seconds": fit.cpu_seconds})
    print(f"{trained.name}: {result(record)}")


def build(recipe: Recipe, seed: int) -> tuple[keras.Model, dict[str, str]]:
    """The model before training, and the digest of the model that its weights come from, if any."""
    model = recipe.build()
    if recipe.init_from is None:
        return model, {}
    start = Trained(recipe.init_from, seed).model
    check_inputs(start)
    model.set_weights(model_file.load(start).get_weights())
    return model, {"init_from": file_digest(start)}


def make_twin(model: keras.Model, recipe: Recipe, train: Images, validation: Images) -> Twin:
    """The model that trains, with as many parts of a batch as there are threads to compute them."""
    smallest = fitting.smallest_batch(recipe.batch_size, train, validation)
    parts = min(recipe.threads, smallest) if recipe.share_batches else 1
    return Twin(model, recipe.precision, parts, recipe.label_smoothing)


def origin(trained: Trained, recipe: Recipe, base: dict[str, str], facts: dict[str, Any]) -> dict[str, str]:
    """The tags that identify what decides a training's weights, as digests."""
    return {
        "variant": trained.variant,
        "seed": str(trained.seed),
        "params_digest": digest_of(recipe.as_json() | base),
        "data_digest": facts["data_digest"],
        "split_digest": facts["split_digest"],
        "code_digest": code_digest("train"),
    }


def code_digest(stage: str) -> str:
    """A digest of the modules that dvc.yaml lists for a stage."""
    root = Path(__file__).parents[1]
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    listed = [root / name for name in stages[stage]["deps"] if name.startswith("pipeline/")]
    modules = {path for item in listed for path in ([item] if item.suffix else item.rglob("*.py"))}
    return digest_of({path.relative_to(root).as_posix(): file_digest(path) for path in modules})


def make_record(tags: dict[str, str], recipe: Recipe, fit: Fit, metrics: dict[str, float]) -> dict[str, Any]:
    """The content of training.json; the status is `trained`, or `diverged` with a reason."""
    outcome = {"status": "diverged", "reason": fit.divergence} if fit.divergence else {"status": "trained"}
    params = flat(recipe.settings) | {"threads": recipe.threads, "precision": recipe.precision}
    return {"tags": tags | outcome, "params": params, "metrics": metrics}


def result(record: dict[str, Any]) -> str:
    """How a training ended, in a line."""
    if record["tags"]["status"] == "diverged":
        return f"diverged: {record['tags']['reason']}"
    return f"validation accuracy {record['metrics']['kept_val_accuracy']:.4f}"


def measures(model: keras.Model, recipe: Recipe, fit: Fit, validation: Images) -> dict[str, float]:
    """Metrics that autologging misses: the best epoch, counted from 1, and the scores of the kept weights."""
    history = fit.history
    measured = {"stopped_epoch": len(history["loss"]), "parameters": model.count_params()}
    if fit.divergence is not None:
        return measured
    loss, accuracy = model_file.score(model, validation.images, validation.labels)
    monitor = recipe.early_stopping["monitor"] if recipe.early_stopping else "val_loss"
    best = np.argmax if monitor == "val_accuracy" else np.argmin
    return measured | {
        "best_epoch": int(best(history[monitor])) + 1,
        "best_val_accuracy": max(history["val_accuracy"]),
        "kept_val_loss": loss,
        "kept_val_accuracy": accuracy,
    }


def write(
    trained: Trained, model: keras.Model, history: dict[str, list[float]], record: dict[str, Any]
) -> None:
    """Write the model, its history (epochs count from 1) and the record of its training."""
    model_file.save(model, trained.model)
    epochs = pd.RangeIndex(1, len(history["loss"]) + 1, name="epoch")
    table = pd.DataFrame(history, index=epochs).sort_index(axis=1)
    table.to_csv(trained.history, lineterminator="\n")
    write_json(trained.folder / "training.json", record)


def log_epochs() -> keras.callbacks.Callback:
    """Logs each epoch of a resumed training. Autologging refuses, since the first epoch differs from
    the run's parameters."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch, synchronous=False)
    )


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}, "c": 2} as {"a.b": 1, "c": 2}."""
    result: dict[str, Any] = {}
    for key, value in nested.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


if __name__ == "__main__":
    main()
