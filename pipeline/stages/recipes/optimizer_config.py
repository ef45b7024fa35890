"""A variant's optimizer as Keras's own configuration, checked."""

import inspect
from typing import Any

from pipeline.core.backend import keras, tf
from pipeline.core.variant import Named, Optimizer
from pipeline.stages.recipes.keras_objects import keras_object, kind_of, kinds_of
from pipeline.stages.train import custom_optimizers
from pipeline.support.errors import PipelineError, in_a_line

OPTIMIZERS = kinds_of("optimizers", keras.optimizers, custom_optimizers)
SCHEDULES = kinds_of("optimizers/schedules", keras.optimizers.schedules, custom_optimizers)


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
    warm_up = rate.arguments.get("warmup_steps", 0)
    if not isinstance(warm_up, int):
        return rate  # which is refused
    missing = {"steps", "decay_steps"} & inspect.signature(kind_of(rate, SCHEDULES)).parameters.keys()
    return Named(**dict.fromkeys(missing, max(1, steps - warm_up)) | dict(rate))
