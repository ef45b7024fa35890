"""params.yaml as one frozen object, checked before any work.

python -m pipeline.params      says what is wrong with params.yaml, or that it is fine
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.errors import one_line_errors
from pipeline.paths import PARAMS
from pipeline.settings.hyperparameters import (
    Hyperparameters,
    Section,
    Seed,
    VariantName,
)
from pipeline.settings.reading import read_params


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


class Params(Hyperparameters):
    """All of params.yaml."""

    model_config = Section.model_config

    data: Data
    split: Split
    promotion: Promotion
    serving: Serving
    published: dict[VariantName, Annotated[float, Field(gt=0, le=1)]]

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
