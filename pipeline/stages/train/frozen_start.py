"""Trains the last layer alone at first: its random weights would spoil those that the others start with."""

from typing import Any

from pipeline.core.backend import keras
from pipeline.core.recipe import Recipe
from pipeline.core.variant import Start


class FrozenStart(keras.callbacks.Callback):
    """Freezes all layers of a twin's network but the last for some epochs, then trains all at a lower rate.

    The second phase has a new optimizer: with the moments of an old one, which begin late for most weights,
    Adam's first steps would be several times too large. All follows from the number of the epoch, so that a
    training resumes in either phase. The optimizer has variables for all layers from the start.
    """

    def __init__(self, recipe: Recipe, start: Start) -> None:
        super().__init__()
        self.recipe, self.start = recipe, start
        self.frozen: list[keras.Layer] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Begin a phase if it begins with this epoch, or if the training resumes with it."""
        if epoch < self.start.frozen_epochs and not self.frozen:
            network = self.model.network
            leaves = (layer for layer in network._flatten_layers() if not isinstance(layer, keras.Model))
            last = network.layers[-1]
            self.frozen = [layer for layer in leaves if layer.trainable and layer is not last]
            self._set_trainable(False)
        elif epoch == self.start.frozen_epochs:
            self._set_trainable(True)
            self._renew_optimizer()

    def _set_trainable(self, trainable: bool) -> None:
        for layer in self.frozen:
            layer.trainable = trainable
        self.model.make_train_function(force=True)

    def _renew_optimizer(self) -> None:
        """Give the optimizer the variables of a new one, with the lower learning rate."""
        new: Any = self.recipe.make_optimizer()
        new.build(self.model.trainable_variables)
        for variable, value in zip(self.model.optimizer.variables, new.variables, strict=True):
            variable.assign(value)
        rate = float(new.learning_rate)
        self.model.optimizer.learning_rate = rate * self.start.learning_rate_factor
