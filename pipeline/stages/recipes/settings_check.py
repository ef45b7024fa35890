"""Check what a variant's settings name and combine, as far as that needs neither data nor TensorFlow."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.core.variant import Named, Start, Variant
from pipeline.support.errors import PipelineError
from pipeline.support.known_names import class_arguments, keras_classes, network_arguments
from pipeline.support.params_errors import shortened

TRAIN = Path(__file__).parents[1] / "train"
ABSTRACT = {"LearningRateSchedule", "LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}
OWN = {  # in the modules of `train`
    "optimizers": {"ScaledSGD": TRAIN / "custom_optimizers.py"},
    "optimizers/schedules": {"Triangle": TRAIN / "custom_optimizers.py"},
    "layers": {"RandomShift": TRAIN / "augmentation.py", "Cutout": TRAIN / "augmentation.py"},
}


def check_settings(key: str, variant: Variant) -> None:
    """Raise PipelineError, naming a key of the block, if something of it cannot be used."""
    known = network_arguments(variant.network.name)
    check_arguments(f"{key}.network", variant.network, known)
    check_class(f"{key}.optimizer", variant.optimizer, "optimizers")
    if isinstance(rate := variant.optimizer.learning_rate, Named):
        check_class(f"{key}.optimizer.learning_rate", rate, "optimizers/schedules")
    for number, layer in enumerate(variant.augmentation or []):
        check_class(f"{key}.augmentation.{number}", layer, "layers")
    check_combination(key, variant)


def classes(package: str) -> dict[str, Path]:
    """The classes of a package of Keras that params.yaml may name, and ours: the source of each by its name.

    Of layers, those that change images at random and keep their labels.
    """
    begin = ("Rand", "AugMix") if package == "layers" else ""
    found = {name: path for name, path in keras_classes(package).items() if name.startswith(begin)}
    return {name: path for name, path in found.items() if name not in ABSTRACT} | OWN[package]


def check_class(key: str, named: Named, package: str) -> None:
    """Raise PipelineError unless a package has such a class, and the class such arguments."""
    known = classes(package)
    name = class_name(named, known)
    if name is None:
        allowed = ", ".join(sorted(known))
        raise PipelineError(f"{key}.name: allowed: {allowed}; received {shortened(named.name)}")
    check_arguments(key, named, class_arguments(known[name], name))


def class_name(named: Named, known: Iterable[str]) -> str | None:
    """The class that is meant: its name may be Keras's or have underscores, as RandomFlip and random_flip."""
    names = {name.lower(): name for name in known}
    return names.get(named.name.lower().replace("_", ""))


def check_arguments(key: str, named: Named, known: list[str]) -> None:
    """Raise PipelineError unless all arguments are known."""
    if unknown := sorted(set(named.arguments) - set(known)):
        raise PipelineError(f"{key}.{unknown[0]}: unknown argument; allowed: {', '.join(known) or 'none'}")


def check_combination(key: str, variant: Variant) -> None:
    """Raise PipelineError if Keras leaves undefined what these settings do together."""
    if isinstance(variant.optimizer.learning_rate, Named) and variant.reduce_learning_rate:
        raise PipelineError(
            f"{key}.reduce_learning_rate: cannot lower a learning rate that follows a schedule; "
            "remove one of the two"
        )
    if variant.start:
        check_start(f"{key}.start", variant, variant.start)
    stopping = variant.early_stopping
    if variant.optimizer.arguments.get("use_ema") and stopping and stopping.restore_best_weights:
        raise PipelineError(
            f"{key}.early_stopping.restore_best_weights: must be false with optimizer.use_ema, since it "
            "would restore weights that are not averaged"
        )


def check_start(key: str, variant: Variant, start: Start) -> None:
    """Raise PipelineError if other settings contradict a start."""
    if given := [name for name in ("whitening", "identity_kernels") if getattr(variant, name)]:
        raise PipelineError(
            f"{key}: cannot be used with {given[0]}, which sets weights, too; remove one of the two"
        )
    if start.frozen_epochs > variant.epochs:
        limit = f"must be at most epochs, {variant.epochs}"
        raise PipelineError(f"{key}.frozen_epochs: {limit}; received {start.frozen_epochs}")
    if start.frozen_epochs and variant.lookahead:
        raise PipelineError(f"{key}.frozen_epochs: cannot be used with lookahead; remove one of the two")
    if start.frozen_epochs and isinstance(variant.optimizer.learning_rate, Named):
        raise PipelineError(
            f"{key}.frozen_epochs: needs a learning rate that is a number; received a schedule"
        )
