"""A recipe: everything but data and code that decides a training, as `recipes` wrote it.

Digests of it, the data and the code, which together decide the weights and the predictions, are the keys of
checkpoints and results.
"""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from pipeline.core.arrays import read_facts
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED, RECIPES

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).parents[2]
REMAKE = "run `dvc repro --force --single-item recipes` to train for this machine"


@dataclass(frozen=True)
class Recipe:
    """`model` and `optimizer` are Keras configurations; `settings` is the block of params.yaml, in which
    optional keys that are not used are missing.

    `share_batches` says how `threads` work together: on parts of each batch, or on each operation.
    """

    variant: str
    init_from: str | None
    model: dict[str, Any]
    optimizer: dict[str, Any]
    settings: dict[str, Any]
    threads: int
    share_batches: bool
    precision: str
    precision_setting: str
    device: str
    versions: dict[str, str]

    @classmethod
    def read(cls, variant: str) -> Self:
        """The recipe of a variant; PipelineError if there is none."""
        path = RECIPES / f"{variant}.json"
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError as error:
            known = ", ".join(sorted(p.stem for p in RECIPES.glob("[!_]*.json"))) or "none"
            raise PipelineError(f"{path}: no such recipe; there are: {known}") from error
        except (ValueError, TypeError) as error:
            raise PipelineError(f"{path}: cannot be read: {error}; run `dvc repro recipes`") from error

    def base(self, seed: int) -> ModelFiles | None:
        """The model that a fine-tuning begins with; None for other trainings."""
        return None if self.init_from is None else ModelFiles(self.init_from, seed)

    def check_machine(self) -> None:
        """Raise PipelineError if versions, device or precision here are not those of the recipe."""
        from pipeline.core import hardware

        for package, expected in self.versions.items():
            if (installed := version(package)) != expected:
                raise PipelineError(
                    f"recipes/{self.variant}.json: made with {package} {expected}, but {installed} is "
                    "installed: run `make setup`, or change training in params.yaml"
                )
        here = {"device": hardware.device(), "precision": hardware.resolve_precision(self.precision_setting)}
        for key, found in here.items():
            if found != (expected := getattr(self, key)):
                raise PipelineError(
                    f"recipes/{self.variant}.json: {key} is {expected}, but here it is {found}: {REMAKE}"
                )

    def build(self) -> "keras.Model":
        """A new model with random weights; each call draws others."""
        from pipeline.core.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.model))  # Keras changes it

    def make_optimizer(self) -> "keras.Optimizer":
        """A new optimizer."""
        from pipeline.core.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.optimizer))


def training_tags(files: ModelFiles, recipe: Recipe, start: Path | None, code: str) -> dict[str, str]:
    """The tags that identify what decides a training's weights; their digest is its key.

    `start` is the model file that a fine-tuning begins with, `code` the digest of the stage's modules.
    """
    facts = read_facts(PREPARED / "split")
    base = {} if start is None else {"init_from": file_digest(start)}
    return {
        "variant": files.variant,
        "seed": str(files.seed),
        "params_digest": digest_of(asdict(recipe) | base),
        "data_digest": facts["data_digest"],
        "split_digest": facts["split_digest"],
        "code_digest": code,
    }


def prediction_key(model: Path, recipe: Recipe, code: str) -> str:
    """The digest of what decides a model's predictions."""
    split = read_facts(PREPARED / "split")["split_digest"]
    views = recipe.settings.get("views")
    return digest_of([file_digest(model), recipe.threads, recipe.share_batches, views, split, code])


def code_digests() -> dict[str, str]:
    """The digests of the modules of both stages, by the stage."""
    return {stage: code_digest(stage) for stage in ("train", "predict")}


def code_digest(stage: str) -> str:
    """A digest of the modules that dvc.yaml lists for a stage."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = [ROOT / name for name in stages[stage]["deps"] if name.startswith("pipeline/")]
    modules = {path for item in listed for path in ([item] if item.suffix else item.rglob("*.py"))}
    return digest_of({path.relative_to(ROOT).as_posix(): file_digest(path) for path in modules})
