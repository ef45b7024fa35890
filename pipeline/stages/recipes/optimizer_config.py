"""A variant's optimizer as Keras's own configuration, checked."""

import inspect
from typing import Any

from pipeline.core.backend import keras, tf
from pipeline.core.variant import Named, Optimizer, Start, Variant
from pipeline.stages.recipes.keras_objects import by_name, class_of, keras_object
from pipeline.stages.train.custom_optimizers import ScaledSGD, Triangle
from pipeline.support.errors import PipelineError, in_a_line

EXCLUDED = {"LearningRateSchedule", "LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}


def _classes(module: Any, *added: type) -> dict[str, type]:
    """The classes of a module, except abstract ones and those that wrap others, by lower-case name."""
    found = [kind for name, kind in vars(module).items() if inspect.isclass(kind) and name not in EXCLUDED]
    return by_name((*found, *added))


OPTIMIZERS = _classes(keras.optimizers, ScaledSGD)
SCHEDULES = _classes(keras.optimizers.schedules, Triangle)


def configuration(key: str, optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """The optimizer as Keras serializes it. A schedule without steps lasts for all `steps` of the training.

    Raises PipelineError, naming the `key`, if Keras refuses it.
    """
    rate: Any = optimizer.learning_rate
    if isinstance(rate, Named):
        rate = keras_object(f"{key}.learning_rate", with_steps(rate, steps), SCHEDULES)
    built = keras_object(key, optimizer.model_copy(update={"learning_rate": rate}), OPTIMIZERS)
    try:
        built.apply([tf.ones((2, 2))], [keras.Variable(tf.zeros((2, 2)))])
        return keras.saving.serialize_keras_object(built)
    except Exception as error:  # Keras checks few arguments before it uses them
        raise PipelineError(f"{key}: cannot be used: {in_a_line(error)[:500]}") from error


def with_steps(rate: Named, steps: int) -> Named:
    """A schedule that, if its number of steps is not given, has so many, those of its warm-up among them."""
    kind, warm_up = class_of(rate, SCHEDULES), rate.arguments.get("warmup_steps", 0)
    if kind is None or not isinstance(warm_up, int):
        return rate  # which is refused
    missing = {"steps", "decay_steps"} & inspect.signature(kind).parameters.keys()
    return Named(**dict.fromkeys(missing, max(1, steps - warm_up)) | dict(rate))


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
