"""A variant's optimizer as Keras's own configuration, checked. Used only by `recipes`."""

import inspect
from typing import Any

from pipeline.core.backend import keras, tf
from pipeline.core.variant import Named, Optimizer, Variant
from pipeline.stages.recipes.model_config import check_arguments
from pipeline.stages.train.custom_optimizers import ScaledSGD, Triangle
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.params_errors import shortened

OPTIMIZERS = {  # but those that only wrap others
    name.lower(): kind
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and "learning_rate" in inspect.signature(kind).parameters
    and kind is not keras.optimizers.Optimizer
} | {"scaledsgd": ScaledSGD}
SCHEDULES = {
    name.lower(): kind
    for name, kind in vars(keras.optimizers.schedules).items()
    if isinstance(kind, type) and name != "LearningRateSchedule"
} | {"triangle": Triangle}


def configuration(key: str, optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """The optimizer as Keras serializes it. A `triangle` without steps gets all `steps` of the training.

    Raises PipelineError, naming the `key`, if Keras refuses it.
    """
    rate = optimizer.learning_rate
    if isinstance(rate, Named) and rate.name.lower() == "triangle":
        rate = Named(**{"steps": steps} | dict(rate))
    learning_rate = made(f"{key}.learning_rate", rate, SCHEDULES) if isinstance(rate, Named) else rate
    arguments = optimizer.model_copy(update={"learning_rate": learning_rate})
    result = made(key, arguments, OPTIMIZERS)
    try:
        result.apply([tf.ones((2, 2))], [keras.Variable(tf.zeros((2, 2)))])
        return keras.saving.serialize_keras_object(result)
    except Exception as error:  # Keras checks few arguments before it uses them
        raise PipelineError(f"{key}: cannot be used: {in_a_line(error)[:500]}") from error


def made(key: str, named: Named, kinds: dict[str, Any]) -> Any:
    """The object that a name and arguments stand for; `kinds` are the classes by their lower-case names."""
    kind = kinds.get(named.name.lower().replace("_", ""))
    if kind is None:
        allowed = ", ".join(sorted(kind.__name__ for kind in kinds.values()))
        raise PipelineError(f"{key}.name: allowed: {allowed}; received {shortened(named.name)}")
    check_arguments(key, kind, named.arguments, skip={"name"})
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
