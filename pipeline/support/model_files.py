"""ModelFiles models: their files, records, scores and tags."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.support.digests import file_digest
from pipeline.support.locks import is_free
from pipeline.support.paths import CHECKPOINTS, EVALUATION, METRICS, MODELS, PREDICTIONS, RECIPES
from pipeline.support.reading import read_json, read_table

if TYPE_CHECKING:
    import pandas as pd

AFTER_TRAINING = 1_000_000  # MLflow's step of a model; the metrics of an epoch's step would be its scores
INDEX = RECIPES / "_index.json"  # no variant's name starts with an underscore


@dataclass(frozen=True)
class ModelFiles:
    """The model that one variant gives with one seed, whether it has been trained yet or not."""

    variant: str
    seed: int
    ahead: Path | None = field(default=None, compare=False)  # its folder until its stage takes it up

    @property
    def name(self) -> str:
        """VARIANT-SEED, the name of its files and of its MLflow run."""
        return f"{self.variant}-{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder that its training writes."""
        return self.ahead or MODELS / self.name

    @property
    def model(self) -> Path:
        """The Keras model."""
        return self.folder / "model.keras"

    @property
    def history(self) -> Path:
        """The metrics of each epoch, a CSV file."""
        return self.folder / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """The state of its training after the last epoch, while it is not finished."""
        return CHECKPOINTS / f"{self.name}.npz"

    @property
    def predictions(self) -> Path:
        """The folder of its probabilities for validation and test images."""
        return PREDICTIONS / self.name

    @property
    def evaluation(self) -> Path:
        """The folder of its tables and figures."""
        return EVALUATION / self.name

    @property
    def scores(self) -> Path:
        """The file of its scores."""
        return METRICS / f"{self.name}.json"

    def record(self) -> dict[str, Any]:
        """The `tags`, `params` and `metrics` of its training."""
        path, tags, metrics = self.folder / "training.json", {"status": str, ...: str}, {...: float}
        record = read_json(path, {"tags": tags, "params": dict, "metrics": metrics})
        if record["tags"]["status"] == "diverged":
            return read_json(path, {"tags": {"reason": str}})
        return read_json(path, {"metrics": {"validation/accuracy": float, "parameters": float}})

    def epochs(self) -> "pd.DataFrame":
        """The metrics of each epoch: a row each, in which `epoch` counts from 1."""
        diverged = self.record()["tags"]["status"] == "diverged"
        names = ("accuracy", "loss", "val_accuracy", "val_loss")
        return read_table(self.history, {"epoch": int} | dict.fromkeys(names, float), finite=not diverged)

    def outcome(self) -> str:
        """How its training ended, in a line."""
        record = self.record()
        if record["tags"]["status"] == "diverged":
            return f"diverged: {record['tags']['reason']}"
        return f"validation accuracy {record['metrics']['validation/accuracy']:.4f}"

    def metrics(self) -> dict[str, Any]:
        """Its scores on `validation` and `test` images, by name; if it diverged, `status` and `reason`."""
        part = {"accuracy": float, ...: float}
        diverged = "status" in read_json(self.scores, dict)
        expected = {"status": str, "reason": str} if diverged else {"validation": part, "test": part}
        return read_json(self.scores, expected)

    def divergence(self) -> str | None:
        """Why it has no scores, if its training diverged."""
        return self.metrics().get("reason")

    def tags(self) -> dict[str, str]:
        """The tags that identify its MLflow run."""
        return {
            "variant": self.variant,
            "seed": str(self.seed),
            "model_digest": file_digest(self.model),
        }


def all_models() -> list[ModelFiles]:
    """The models that params.yaml asks for, in its order, as `recipes` listed them."""
    models = read_json(INDEX, [{"variant": str, "seed": int}])
    return [ModelFiles(model["variant"], model["seed"]) for model in models]


def remove_other_checkpoints(models: list[ModelFiles]) -> list[str]:
    """Remove the checkpoints of all trainings but these, unless one is running; the names of the removed."""
    kept = {files.name for files in models}
    others = [path for path in sorted(CHECKPOINTS.glob("*.npz")) if path.stem not in kept]
    stopped = [path for path in others if is_free(f"train-{path.stem}")]
    for path in stopped:
        path.unlink()
    return [path.stem for path in stopped]
