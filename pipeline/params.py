"""params.yaml as one frozen object, checked before any work.

python -m pipeline.params      says what is wrong with params.yaml, or that it is fine
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.errors import one_line_errors
from pipeline.hyperparameters import (
    Finetune,
    Section,
    Seed,
    Training,
    Variant,
    VariantName,
    read_params,
)
from pipeline.paths import PARAMS


class Data(Section):
    """Where the images come from; `name` names the dataset, its experiment and its model."""

    source: Literal["cifar10", "digits", "directory"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    archives: list[str] = Field(default_factory=list)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    directory: str | None = None

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> Self:
        needed = {
            "cifar10": ("archives", "sha256"),
            "digits": (),
            "directory": ("directory", "name"),
        }
        for key in needed[self.source]:
            if not getattr(self, key):
                raise ValueError(f"source {self.source} needs {key}")
        return self

    @property
    def dataset(self) -> str:
        """The dataset's name, which is its experiment's and its registered model's too."""
        return self.name or self.source


class Split(Section):
    """How the validation images are taken from the training images."""

    strategy: Literal["stratified", "first", "batch"]
    fraction: float = Field(gt=0, lt=1)
    seed: Seed


class Promotion(Section):
    """What a champion has to reach: this much accuracy above chance, on validation data."""

    margin: float = Field(ge=0, lt=1)


class Serving(Section):
    """How the champion answers: at most this many images in a request."""

    batch_limit: int = Field(gt=0)


class Params(Section):
    """All of params.yaml."""

    data: Data
    split: Split
    training: Training
    seeds: list[Seed] = Field(min_length=1)
    variants: dict[VariantName, Variant] = Field(min_length=1)
    finetune: Finetune
    promotion: Promotion
    serving: Serving
    published: dict[VariantName, Annotated[float, Field(gt=0, le=1)]]

    @model_validator(mode="after")
    def _names_fit_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each is allowed once; received {self.seeds}")
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

    @property
    def trained_models(self) -> list[tuple[str, int]]:
        """Every (variant, seed) that params name now, in their order."""
        return [(name, seed) for name in self.variant_names for seed in self.seeds]

    @property
    def variant_names(self) -> list[str]:
        """The variants that are trained from the start, then those that are fine-tuned."""
        return [*self.variants, *self.finetune.variants]


@one_line_errors
def main() -> None:
    """Check params.yaml, and the versions that it names."""
    params = read_params(Params)
    params.training.check_versions()
    print(f"{PARAMS}: fine: {len(params.trained_models)} trainings on {params.data.dataset}")


if __name__ == "__main__":
    main()
