"""A variant's optimizer as Keras's own configuration, checked."""

import inspect
from typing import Any

from pipeline.core.backend import keras, tf
from pipeline.core.variant import Named, Optimizer, Variant
from pipeline.stages.recipes.model_config import check_arguments
from pipeline.stages.train.custom_optimizers import ScaledSGD, Triangle
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

EXCLUDED = {"LearningRateSchedule", "LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}


def _classes(module: Any, *added: type) -> dict[str, type]:
    """The classes of a module, except abstract ones and those that wrap others, by lower-case name."""
    found = [kind for name, kind in vars(module).items() if inspect.isclass(kind) and name not in EXCLUDED]
    return {kind.__name__.lower(): kind for kind in (*found, *added)}


OPTIMIZERS = _classes(keras.optimizers, ScaledSGD)
SCHEDULES = _classes(keras.optimizers.schedules, Triangle)


def configuration(key: str, optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """The optimizer as Keras serializes it. A `triangle` without steps gets all `steps` of the training.

    Raises PipelineError, naming the `key`, if Keras refuses it.
    """
    rate: Any = optimizer.learning_rate
    if isinstance(rate, Named) and rate.name.lower() == "triangle":
        rate = Named(**{"steps": steps} | dict(rate))
    if isinstance(rate, Named):
        rate = keras_object(f"{key}.learning_rate", rate, SCHEDULES)
    built = keras_object(key, optimizer.model_copy(update={"learning_rate": rate}), OPTIMIZERS)
    try:
        built.apply([tf.ones((2, 2))], [keras.Variable(tf.zeros((2, 2)))])
        return keras.saving.serialize_keras_object(built)
    except Exception as error:  # Keras checks few arguments before it uses them
        raise PipelineError(f"{key}: cannot be used: {in_a_line(error)[:500]}") from error


def keras_object(key: str, named: Named, kinds: dict[str, Any]) -> Any:
    """The object with this name and arguments; `kinds` are the classes by their lower-case names."""
    kind = kinds.get(named.name.lower().replace("_", ""))
    if kind is None:
        allowed = ", ".join(sorted(kind.__name__ for kind in kinds.values()))
        raise PipelineError(f"{key}.name: allowed: {allowed}; received {shortened(named.name)}")
    check_arguments(key, kind, named.arguments)
    try:
        return kind(**named.arguments)
    except Exception as error:
        raise PipelineError(f"{key}: {in_a_line(error)[:500]}") from error


def check_combination(key: str, variant: Variant) -> None:
    """Raise PipelineError if Keras leaves undefined what these settings do together."""
    if isinstance(variant.optimizer.learning_rate, Named) and variant.reduce_learning_rate:
        raise PipelineError(
            f"{key}.reduce_learning_rate: cannot lower a learning rate that follows a schedule; "
            "remove one of the two"
        )
    stopping = variant.early_stopping
    if variant.optimizer.arguments.get("use_ema") and stopping and stopping.restore_best_weights:
        raise PipelineError(
            f"{key}.early_stopping.restore_best_weights: must be false with optimizer.use_ema, since it "
            "would restore weights that are not averaged"
        )
