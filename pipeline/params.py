"""Read params.yaml as one frozen object, and say what is wrong with it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.core.variant import NAME_ALONE, Network, Section, Sha256, Start, Variant
from pipeline.support.known_names import application_names, metric_names, network_names
from pipeline.support.model_files import ModelFiles
from pipeline.support.params_errors import load_params, shortened, text
from pipeline.support.paths import PARAMS, check_apart

# Names are parts of the names of files, which have at most 255 bytes, and of MLflow's registered models.
VariantName = Annotated[str, text("[a-z][a-z0-9_]{,99}", "a lower-case letter and up to 99 a-z, 0-9 or _")]
DatasetName = Annotated[
    str, text("[A-Za-z0-9][A-Za-z0-9_.-]{,99}", "a letter or digit and at most 99 letters, digits, _, . or -")
]
PartName = Annotated[str, text(r"all|test|train(?a:\w){,99}", "all, test, or train and letters, digits or _")]
FolderPath = Annotated[str, text(r"[^'\n]+", "a path without ' and line breaks"), AfterValidator(check_apart)]
REGISTERED = r"models:/[^/@]+(/[1-9][0-9]*|@[^/@]+)"  # an alias is refused when its version is known
Line = Annotated[str, text(r"(?s).*\S.*", "a text")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Source(Section):
    """Where images come from. Each source requires its own keys and leaves the others unused."""

    source: str
    name: DatasetName | None = None
    archives: list[str] = Field(default_factory=list)
    sha256: Sha256 | None = None
    folders: dict[PartName, FolderPath] = Field(default_factory=dict)
    image_size: int = 32
    fit: Literal["crop", "pad"] = "crop"

    @property
    def dataset(self) -> str:
        """The name of the dataset, of its experiment and of its registered model."""
        return self.name or self.source


class Cifar10(Source):
    """CIFAR-10's archive, from the first of several URLs or files that has the right SHA-256."""

    source: Literal["cifar10"]
    archives: list[str] = Field(min_length=1)
    sha256: Sha256
    image_size: Literal[32] = 32
    fit: Literal["crop"] = "crop"


class Digits(Source):
    """The handwritten digits that scikit-learn carries."""

    source: Literal["digits"]
    image_size: Literal[32] = 32
    fit: Literal["crop"] = "crop"


class Directory(Source):
    """The user's own images: folders of CLASS folders for `test` and `train*`, or one for `all`."""

    source: Literal["directory"]
    name: DatasetName
    image_size: int = Field(default=32, ge=8, le=1024)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    unreadable: Literal["error", "warn"] = "error"

    @model_validator(mode="after")
    def _has_its_folders(self) -> Self:
        parts = {part[:5] for part in self.folders}
        if parts not in ({"all"}, {"test", "train"}):
            raise ValueError("folders must name a folder for test and one or more for train, or one for all")
        return self


class Split(Section):
    """How the validation images are taken from the training images."""

    strategy: Literal["stratified", "content", "first", "batch"]
    fraction: float = Field(gt=0, lt=1)
    seed: Seed
    duplicates: Literal["error", "warn"] = "error"


class Training(Section):
    """Settings of all trainings. The number of threads affects the rounding of the weights."""

    threads: int = Field(gt=0, le=1024)
    precision: Literal["float32", "mixed_bfloat16", "auto"]
    tensorflow: str
    keras: str

    @property
    def versions(self) -> dict[str, str]:
        """The required versions by package."""
        return {"keras": self.keras, "tensorflow": self.tensorflow}


class Cluster(Section):
    """What one training takes on a Ray cluster: by default one CPU per thread, and a GPU if it needs one."""

    cpus: float | None = Field(default=None, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    memory: float = Field(default=2, gt=0)  # GiB


class KnownNetwork(Network):
    """A network that networks.py has."""

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in network_names():
            raise ValueError(f"allowed: {', '.join(network_names())}")
        return name

    @model_validator(mode="after")
    def _is_an_application_of_keras(self) -> Self:
        model = self.arguments.get("model", "MobileNet")
        if self.name == "application" and model not in application_names():
            raise ValueError(f"model: allowed: {', '.join(application_names())}")
        return self


class StartSource(Start):
    """Where the weights of a start are: a file, or the model of a registered version."""

    weights: list[str] | None = Field(default=None, min_length=1)  # URLs or files, tried in this order
    model: Annotated[str, text(REGISTERED, "models:/NAME/VERSION")] | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.weights is None) == (self.model is None):
            raise ValueError("must have exactly one of weights and model")
        return self


class Block(Variant):
    """A variant's block, whose network exists."""

    network: Annotated[KnownNetwork, NAME_ALONE]
    start: StartSource | None = None

    def without_source(self) -> Variant:
        """The variant as its recipe has it: where its weights are found changes no training."""
        return Variant.model_validate(self.model_dump(exclude={"start": {"weights", "model"}}))


class Finetune(Section):
    """Variants that start from the trained weights of another variant, seed by seed."""

    init_from: VariantName | None = None
    variants: dict[VariantName, Block] = Field(default_factory=dict)


class Promotion(Section):
    """The metric that chooses, on validation images, and by how much accuracy must exceed chance."""

    margin: float = Field(default=0.1, ge=0, lt=1)
    metric: str = "accuracy"

    @field_validator("metric")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in (known := metric_names()):
            raise ValueError(f"allowed: {', '.join(known)}")
        return name


class Serving(Section):
    """How the champion is served."""

    batch_limit: int = Field(default=256, gt=0)  # images in one request
    temperature: Literal["auto"] | Annotated[float, Field(ge=0.05, le=20)] = "auto"
    refuse_below: float | None = Field(default=None, gt=0, le=1)


class Card(Section):
    """What only a person can say of the model, in its card."""

    intended_use: Line | None = None
    licence: Line | None = None  # of the model
    owner: Line | None = None
    origin: Line | None = None  # of the images, with their licence


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("must be distinct")
    return seeds


class Params(Section):
    """All of params.yaml."""

    data: Annotated[Cifar10 | Digits | Directory, Field(discriminator="source")]
    split: Split
    training: Training
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
    variants: dict[VariantName, Block] = Field(min_length=1)
    finetune: Finetune = Field(default_factory=Finetune)
    cluster: Cluster = Field(default_factory=Cluster)
    promotion: Promotion = Field(default_factory=Promotion)
    serving: Serving = Field(default_factory=Serving)
    card: Card = Field(default_factory=Card)
    published: dict[VariantName, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = PARAMS) -> Self:
        """The params of a file. Raises PipelineError with all that is wrong with it, in one line."""
        return load_params(cls, path)

    @property
    def blocks(self) -> dict[str, Block]:
        """All variants by the keys of their blocks, those that are fine-tuned last."""
        tables = {"variants": self.variants, "finetune.variants": self.finetune.variants}
        return {f"{key}.{name}": block for key, blocks in tables.items() for name, block in blocks.items()}

    @property
    def models(self) -> list[ModelFiles]:
        """The models that these params ask for."""
        return [ModelFiles(key.rpartition(".")[2], seed) for key in self.blocks for seed in self.seeds]

    @model_validator(mode="after")
    def _finetuning_fits_its_start(self) -> Self:
        if not self.finetune.variants:
            return self
        start, finetuned = self.finetune.init_from, self.finetune.variants
        if twice := set(self.variants) & set(finetuned):
            raise ValueError(f"finetune.variants: in variants too: {', '.join(sorted(twice))}")
        if start not in self.variants:
            allowed = f"allowed: {', '.join(self.variants)}; received {shortened(start)}"
            raise ValueError(f"finetune.init_from: {'missing' if start is None else allowed}")
        network = self.variants[start].network
        for name, variant in finetuned.items():
            if variant.start:
                raise ValueError(f"finetune.variants.{name}.start: not allowed: it starts from {start}")
            if variant.network != network:
                raise ValueError(
                    f"finetune.variants.{name}.network: must be {network.model_dump()!r}, that of "
                    f"finetune.init_from; received {variant.network.model_dump()!r}"
                )
        return self
