"""Train one variant with one seed, in an MLflow run of its own.

    python -m pipeline.train VARIANT SEED

Reads params.yaml (training, the variant's block), precision.json, data/prepared/{split,train,validation}
and, for a variant that starts from another's weights, that one's model.
Writes models/VARIANT-SEED/: `model.keras`, the model that is scored and served; `history.csv`, a row
an epoch; `training.json`, what went in and what came out. A training whose loss is no longer finite ends
there, well, with the status `diverged`: that is a result, which is told and never promoted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from pipeline.data.arrays import digest_of, file_digest, read_arrays, read_facts, write_json
from pipeline.errors import PipelineError, one_line_errors
from pipeline.integrity import check_inputs
from pipeline.learning import models, training
from pipeline.learning.backend import keras
from pipeline.learning.checkpoint import Checkpoint
from pipeline.learning.training import Fit, Images
from pipeline.learning.twin import twin
from pipeline.paths import CHECKPOINTS, MODELS, PARAMS, PRECISION, PREPARED
from pipeline.records import recording, store, tracking
from pipeline.running.lock import alone
from pipeline.settings.hyperparameters import Hyperparameters, Variant
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Read, train in a run, re-evaluate the weights that are kept, write and log them."""
    name, seed = _arguments()
    params = read_params(Hyperparameters)
    params.training.check_versions()
    variant = params.variant(name)
    check_inputs(PRECISION, *(PREPARED / part for part in ("split", "train", "validation")))
    facts = read_facts(PREPARED / "split")
    train, validation = _read_images(name, variant)
    training.make_deterministic(seed, params.training.threads)
    model, base = build(params, name, seed, len(facts["classes"]))
    store.check()  # last: it makes a store where there is none, which a training that is refused must not
    shared = params.training.model_dump() | {"precision": json.loads(PRECISION.read_text())["precision"]}

    folder = MODELS / f"{name}-{seed}"
    tags = origin(name, seed, [variant.model_dump(), shared, *base], facts)
    checkpoint = Checkpoint(CHECKPOINTS / folder.name, digest_of(tags))
    resumed = checkpoint.read() is not None
    with tracking.training_run(facts["name"], folder.name, tags, resumed) as run_id:
        watching = [log_epochs()] if resumed else []
        mlflow.keras.autolog(log_models=False, log_datasets=False, disable=resumed)
        threads = min(params.training.threads, training.smallest_batch(variant, train, validation))
        trainee = twin(model, shared["precision"], threads)
        fit = training.fit(trainee, variant, train, validation, seed, *watching, checkpoint=checkpoint)
        model.set_weights(trainee.get_weights())
        record = {
            "tags": tags | outcome(fit),
            "params": _flat(variant.model_dump()) | {key: shared[key] for key in ("threads", "precision")},
            "metrics": measures(model, variant, fit, validation),
        }
        write(folder, model, fit.history, record)
        with tracking.best_effort(folder.name):
            recording.record(folder, model, train, validation, run_id)
            mlflow.log_metrics({"wall_seconds": fit.wall_seconds, "cpu_seconds": fit.cpu_seconds})
    print(f"{folder.name}: {result(record)}")


def build(
    params: Hyperparameters, name: str, seed: int, classes: int
) -> tuple[keras.Sequential, list[dict[str, str]]]:
    """A variant's model before training, and the digest of the model that its weights come from, if any."""
    model = models.build(params.variant(name).network, classes, name)
    if name not in params.finetune.variants:
        return model, []
    trained = MODELS / f"{params.finetune.init_from}-{seed}" / "model.keras"
    check_inputs(trained)
    model.set_weights(models.load(trained).get_weights())
    return model, [{"init_from": file_digest(trained)}]


def origin(name: str, seed: int, settings: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, str]:
    """The tags that say what a training's weights come from: all that decides them, as digests."""
    return {
        "variant": name,
        "seed": str(seed),
        "params_digest": digest_of(settings),
        "data_digest": facts["data_digest"],
        "split_digest": facts["split_digest"],
        "code_digest": _code_digest(),
    }


def outcome(fit: Fit) -> dict[str, str]:
    """The tags that say how a training ended: `status`, trained or diverged, and the `reason`."""
    if fit.divergence is None:
        return {"status": "trained"}
    return {"status": "diverged", "reason": fit.divergence}


def result(record: dict[str, Any]) -> str:
    """How a training ended, in a line."""
    if record["tags"]["status"] == "diverged":
        return f"diverged: {record['tags']['reason']}"
    return f"validation accuracy {record['metrics']['kept_val_accuracy']:.4f}"


def measures(model: keras.Model, variant: Variant, fit: Fit, validation: Images) -> dict[str, float]:
    """What autologging misses: epochs count from 1, and the figures of the weights that are kept."""
    history = fit.history
    measured = {"stopped_epoch": len(history["loss"]), "parameters": model.count_params()}
    if fit.divergence is not None:
        return measured
    loss, accuracy = models.score(model, validation.images, validation.labels)
    monitor = variant.early_stopping.monitor if variant.early_stopping else "val_loss"
    best = np.argmax if monitor == "val_accuracy" else np.argmin
    return measured | {
        "best_epoch": int(best(history[monitor])) + 1,
        "best_val_accuracy": max(history["val_accuracy"]),
        "kept_val_loss": loss,
        "kept_val_accuracy": accuracy,
    }


def write(folder: Path, model: keras.Model, history: dict[str, list[float]], record: dict[str, Any]) -> None:
    """Write the model, its history (epochs count from 1) and the record of its training."""
    models.save(model, folder / "model.keras")
    epochs = pd.RangeIndex(1, len(history["loss"]) + 1, name="epoch")
    table = pd.DataFrame(history, index=epochs).sort_index(axis=1)
    table.to_csv(folder / "history.csv", lineterminator="\n")
    write_json(folder / "training.json", record)


def log_epochs() -> keras.callbacks.Callback:
    """What autologging does each epoch. It refuses to do so in a run that goes on, since the fit's first
    epoch is another than the run's parameters say."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch, synchronous=False)
    )


def _arguments() -> tuple[str, int]:
    parser = argparse.ArgumentParser(description="Train one variant with one seed.")
    parser.add_argument("variant", help="a block of `variants` or `finetune.variants` in params.yaml")
    parser.add_argument("seed", type=int, help="seeds the weights, the data order and the dropout")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < 2**31:
        raise PipelineError(f"SEED: 0 to {2**31 - 1} are allowed; received {arguments.seed}")
    return arguments.variant, arguments.seed


def _read_images(name: str, variant: Variant) -> tuple[Images, Images]:
    train, validation = (Images(**read_arrays(PREPARED / part)) for part in ("train", "validation"))
    for problem in variant.oversized(len(train.labels)):
        raise PipelineError(f"{PARAMS}: {name}.{problem}")
    return train.first(variant.training_images), validation


def _code_digest() -> str:
    """A digest of the pipeline's modules in use here, as DVC watches them: without the folders' own."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("pipeline.")]
    modules = (module for module in loaded if not hasattr(module, "__path__"))
    files = {Path(__file__), *(Path(module.__file__ or "") for module in modules)}
    package = Path(__file__).parent
    return digest_of({path.relative_to(package).as_posix(): file_digest(path) for path in files})


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}, "c": None} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


if __name__ == "__main__":
    main()
