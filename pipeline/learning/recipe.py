"""A recipe: everything but data and code that decides a training, as `pipeline.recipes` wrote it."""

import json
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from pipeline.shared.errors import PipelineError
from pipeline.shared.paths import RECIPES
from pipeline.shared.trained import Trained

if TYPE_CHECKING:
    import keras

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

    def base(self, seed: int) -> Trained | None:
        """The model that a fine-tuning begins with; None for other trainings."""
        return None if self.init_from is None else Trained(self.init_from, seed)

    def check_machine(self) -> None:
        """Raise PipelineError if versions, device or precision here are not those of the recipe."""
        from pipeline.learning import hardware  # TensorFlow

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
        from pipeline.learning.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.model))  # Keras changes it

    def make_optimizer(self) -> "keras.Optimizer":
        """A new optimizer."""
        from pipeline.learning.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.optimizer))
