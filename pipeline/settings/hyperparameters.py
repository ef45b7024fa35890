"""What decides a variant's weights: the parts of params.yaml that training reads.

Kept apart from the other parameters (`pipeline.params`), so that a change to those retrains nothing.
"""

import ast
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.errors import PipelineError
from pipeline.paths import PARAMS
from pipeline.settings.reading import joined, shortened

NETWORKS = Path(__file__).parents[1] / "learning/networks.py"

VariantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A part of params.yaml: read-only, with no unknown keys and no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Optimizer(Section):
    """A Keras optimizer at Keras's defaults but for the learning rate."""

    name: Literal["adam", "rmsprop", "sgd"]
    learning_rate: float = Field(gt=0)


class EarlyStopping(Section):
    """Stop after `patience` epochs without a better `monitor`."""

    monitor: Literal["val_loss", "val_accuracy"]
    patience: int = Field(ge=0)
    restore_best_weights: bool


class ReduceLearningRate(Section):
    """Multiply the learning rate by `factor` after `patience` epochs without a better `monitor`."""

    monitor: Literal["val_loss", "val_accuracy"]
    factor: float = Field(gt=0, lt=1)
    patience: int = Field(ge=0)


class Variant(Section):
    """One system: a network of `pipeline.learning.networks` and how it is trained."""

    network: str
    optimizer: Optimizer
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)
    training_images: int | None = Field(default=None, gt=0)
    early_stopping: EarlyStopping | None = None
    reduce_learning_rate: ReduceLearningRate | None = None

    @field_validator("network")
    @classmethod
    def _is_defined(cls, network: str) -> str:
        if network not in network_names():
            raise ValueError(f"allowed: {', '.join(network_names())}")
        return network

    @model_validator(mode="after")
    def _fills_a_batch(self) -> Self:
        if self.training_images is not None and self.batch_size > self.training_images:
            raise ValueError(f"batch_size: at most training_images, {self.training_images}, is allowed")
        return self

    def oversized(self, images: int) -> list[str]:
        """The keys that want more than the training `images`, in words."""
        return [
            f"{key}: at most the {images} training images; received {wanted}"
            for key in ("batch_size", "training_images")
            if (wanted := getattr(self, key) or 0) > images
        ]


class Finetune(Section):
    """Variants that start from the trained weights of another variant, seed by seed."""

    init_from: VariantName
    variants: dict[VariantName, Variant]


class Training(Section):
    """What every training shares. Weights depend on the number of threads, in their rounding.

    `precision` is what `pipeline.precision` starts from; trainings use what it chose.
    """

    threads: int = Field(gt=0, le=1024)
    precision: Literal["float32", "mixed_bfloat16", "auto"]
    tensorflow: str
    keras: str

    def check_versions(self) -> None:
        """Raise PipelineError where another TensorFlow or Keras is installed than params name."""
        for package, expected in (("tensorflow", self.tensorflow), ("keras", self.keras)):
            installed = version(package)
            if installed != expected:
                raise PipelineError(
                    f"{PARAMS}: training.{package} is {expected!r}, but {installed!r} is "
                    "installed: run `make setup`, or change it (which retrains every variant)"
                )


class Hyperparameters(BaseModel):
    """The sections of params.yaml that training reads; the others are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    training: Training
    seeds: list[Seed] = Field(min_length=1)
    variants: dict[VariantName, Variant] = Field(min_length=1)
    finetune: Finetune

    @model_validator(mode="after")
    def _names_fit_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each is allowed once; received {shortened(self.seeds)}")
        if twice := set(self.variants) & set(self.finetune.variants):
            raise ValueError(f"finetune.variants: in variants too: {', '.join(sorted(twice))}")
        if self.finetune.variants and self.finetune.init_from not in self.variants:
            raise ValueError(
                f"finetune.init_from: allowed: {', '.join(self.variants)}; "
                f"received {self.finetune.init_from!r}"
            )
        for name, variant in self.finetune.variants.items():
            if variant.network != (network := self.variants[self.finetune.init_from].network):
                raise ValueError(
                    f"finetune.variants.{name}.network: {network!r}, as finetune.init_from has it, is "
                    f"allowed; received {variant.network!r}"
                )
        return self

    def check_sizes(self, images: int) -> None:
        """Raise PipelineError, naming each key, where a variant wants more than the training `images`."""
        sections = {"variants": self.variants, "finetune.variants": self.finetune.variants}
        problems = [
            f"{section}.{name}.{problem}"
            for section, variants in sections.items()
            for name, variant in variants.items()
            for problem in variant.oversized(images)
        ]
        if problems:
            raise PipelineError(f"{PARAMS}: {joined(problems)}")

    def variant(self, name: str) -> Variant:
        """The block of one variant, trained from the start or from another's weights."""
        blocks = self.variants | self.finetune.variants
        if name not in blocks:
            raise PipelineError(f"{PARAMS}: no variant {name!r}; allowed: {', '.join(sorted(blocks))}")
        return blocks[name]


def network_names() -> list[str]:
    """The functions of networks.py, read from its source so that Keras need not be imported."""
    source = NETWORKS.read_text()
    functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [name for name in functions if not name.startswith("_")]
