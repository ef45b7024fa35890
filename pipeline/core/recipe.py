"""A recipe: everything but data and code that decides a training, as the stage `recipes` wrote it."""

from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.variant import Variant
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import read_json
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import RECIPES

if TYPE_CHECKING:
    import keras

RECIPE = "recipe.json"  # in the folder of each variant
REMAKE = "run `dvc repro --force --single-item recipes` to train for this machine"


class Recipe(BaseModel):
    """The content of a recipe. `model` and `optimizer` are Keras configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    init_from: str | None
    model: dict[str, Any]
    optimizer: dict[str, Any]
    settings: Variant
    threads: int = Field(gt=0)
    precision: str
    precision_setting: str
    device: str
    versions: dict[str, str]

    @classmethod
    def read(cls, variant: str) -> Self:
        """The recipe of a variant; PipelineError if there is none."""
        path = RECIPES / variant / RECIPE
        if not path.is_file():
            known = ", ".join(sorted(p.parent.name for p in RECIPES.glob(f"*/{RECIPE}"))) or "none"
            raise PipelineError(f"{path}: no such recipe; there are: {known}")
        recipe: Self = read_json(path, cls)
        return recipe

    def content(self) -> dict[str, Any]:
        """The recipe as JSON-like values, without the settings that are not used."""
        return self.model_dump(mode="json", exclude={"settings"}) | {"settings": self.settings.content()}

    @property
    def path(self) -> Path:
        """Its file."""
        return RECIPES / self.variant / RECIPE

    @property
    def start(self) -> Path | None:
        """The model file beside it whose weights its trainings start with, if the variant has a `start`."""
        return self.path.with_name("start.keras") if self.settings.start else None

    def base(self, seed: int) -> ModelFiles | None:
        """The model that a fine-tuning begins with; None for other trainings."""
        return None if self.init_from is None else ModelFiles(self.init_from, seed)

    def check_machine(self) -> None:
        """Raise PipelineError if versions, device or precision here are not those of the recipe."""
        from pipeline.core import hardware

        check_versions(self.versions, f"{self.path}: versions")
        here = {"device": hardware.device(), "precision": hardware.resolve_precision(self.precision_setting)}
        for key, found in here.items():
            if found != (expected := getattr(self, key)):
                raise PipelineError(f"{self.path}: {key} is {expected}, but here it is {found}: {REMAKE}")

    def build(self) -> "keras.Model":
        """A new model with random weights; each call draws others."""
        from pipeline.core.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.model))  # Keras changes it

    def make_optimizer(self) -> "keras.Optimizer":
        """A new optimizer."""
        from pipeline.core.backend import keras

        return keras.saving.deserialize_keras_object(deepcopy(self.optimizer))


def check_versions(expected: dict[str, str], where: str) -> None:
    """Raise PipelineError if a package has another version than `expected`; the line begins with `where`."""
    for package, wanted in expected.items():
        if (installed := version(package)) != wanted:
            raise PipelineError(
                f"{where}.{package} is {wanted!r}, but {installed!r} is installed: run `make setup`, or "
                "change `training` in params.yaml, which retrains every variant"
            )
