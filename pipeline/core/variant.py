"""A variant: a network and how it is trained, as a block of params.yaml describes it.

The arguments of networks, optimizers and schedules are not checked here, but by Keras, in the stage
`recipes`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from pipeline.support.params_errors import text

Sha256 = Annotated[str, text("[0-9a-f]{64}", "64 of the digits 0-9 and a-f")]
# A network without arguments may be given by its name.
NAME_ALONE = BeforeValidator(lambda network: {"name": network} if isinstance(network, str) else network)


class Section(BaseModel):
    """A part of params.yaml: read-only, without unknown keys or silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Named(BaseModel):
    """Something with a name; all other keys are its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """All keys but the name."""
        return {key: value for key, value in self if key != "name"}


class Network(Named):
    """A function of stages/recipes/networks.py and its arguments."""

    @model_serializer(mode="wrap")
    def _shortened(self, serialize: SerializerFunctionWrapHandler) -> Any:
        return serialize(self) if self.arguments else self.name


class Optimizer(Named):
    """A Keras optimizer; arguments that are not given have Keras's defaults."""

    learning_rate: Annotated[
        Annotated[float, Field(ge=1e-10), Tag("(number)")] | Annotated[Named, Tag("(schedule)")],
        Discriminator(lambda rate: "(schedule)" if isinstance(rate, dict | Named) else "(number)"),
    ]


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


class Whitening(Section):
    """Set the kernel of the convolution `whitening` from the first training images, and train its bias for
    some epochs.
    """

    images: int = Field(gt=0)
    epochs: int = Field(ge=0)


class Lookahead(Section):
    """Average the weights after each `every` steps; the decay per step rises to `decay`."""

    every: int = Field(gt=0)
    decay: float = Field(gt=0, lt=1)


class Start(Section):
    """Weights that a training starts with, known by the SHA-256 of their file.

    For `frozen_epochs` the last layer trains alone; then all do, at `learning_rate_factor` times the rate.
    """

    sha256: Sha256
    frozen_epochs: int = Field(default=0, ge=0)
    learning_rate_factor: float = Field(default=0.1, gt=0, le=1)


class Variant(Section):
    """One system: a network and how it is trained."""

    network: Annotated[Network, NAME_ALONE]
    optimizer: Optimizer
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)
    start: Start | None = None
    training_images: int | None = Field(default=None, gt=0)
    augmentation: list[Named] | None = Field(default=None, min_length=1)
    class_weight: Literal["balanced"] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    early_stopping: EarlyStopping | None = None
    reduce_learning_rate: ReduceLearningRate | None = None
    precision: Literal["float32", "mixed_bfloat16", "auto"] | None = None
    whitening: Whitening | None = None
    identity_kernels: Literal[True] | None = None
    flip: Literal["alternating", "random"] | None = None
    lookahead: Lookahead | None = None
    views: Literal["mirror", "mirror_shift"] | None = None

    @property
    def monitored_from(self) -> int:
        """The first epoch, counted from 0, in which the best one is looked for: all layers train in it."""
        frozen = self.start.frozen_epochs if self.start else 0
        return frozen if frozen < self.epochs else 0

    def content(self) -> dict[str, Any]:
        """The block as JSON-like values, without the keys that are not used."""
        return self.model_dump(mode="json", exclude_none=True)

    def steps(self, images: int) -> int:
        """The number of training steps with so many images."""
        return self.epochs * -(-(self.training_images or images) // self.batch_size)
