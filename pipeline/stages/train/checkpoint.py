"""Saves the training state after every epoch, so an interrupted training resumes.

.pipeline/checkpoints/VARIANT-SEED.npz holds the variables of the model and its optimizer, the state of the
callbacks, and the key: the digest of all that decides the weights. It is not an output for DVC, which deletes
outputs before a stage runs. `predict` removes it, since DVC has the model by then.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.backend import keras

FACTS = "facts"  # the array that holds JSON

# The state of Keras's callbacks.
STATE = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training's state; `key` is the digest of all that decides its weights."""

    path: Path
    key: str

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and facts; None, after removing the file, if it is damaged or has another key."""
        if not self.path.is_file():
            return None
        try:
            with self.path.open("rb") as opened, np.load(opened) as file:  # a zip, with a CRC of each array
                arrays = dict(file)
            facts = json.loads(arrays.pop(FACTS).tobytes())
            if facts["key"] == self.key:
                return arrays, facts
        except Exception as error:  # NumPy and zipfile raise almost anything
            print(f"{self.path.stem}: removing a damaged checkpoint: {error}", flush=True)
        self.path.unlink()
        return None

    def write(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Replace the file, all or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        content = np.frombuffer(json.dumps(facts | {"key": self.key}).encode(), np.uint8)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, **{FACTS: content})
        partial.replace(self.path)


class Resumable(keras.callbacks.Callback):
    """Saves a training's state after each epoch, and restores it at the start, as if it had never stopped.

    It must come after the callbacks whose state it saves. Random layers draw from seed generators, which
    are among the model's variables; the order of the images depends on (seed, epoch).
    """

    def __init__(self, checkpoint: Checkpoint | None, others: Iterable[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.others = {type(other).__name__: other for other in others if type(other) in STATE}
        self.arrays, facts = (checkpoint and checkpoint.read()) or ({}, {})
        self.epochs: int = facts.get("epochs", 0)
        self.stopped: bool = facts.get("stopped", False)
        self.history: dict[str, list[float]] = facts.get("history", {})
        self.spent: dict[str, float] = facts.get("seconds", {"wall": 0.0, "cpu": 0.0})
        self.states: dict[str, dict[str, Any]] = facts.get("callbacks", {})

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Restore the checkpoint, if there is one, and start the clocks."""
        self.started = {"wall": time.perf_counter(), "cpu": time.process_time()}
        if not self.epochs:
            return
        print(f"{self.model.name}: resuming after epoch {self.epochs}", flush=True)
        for part, variables in self._variables().items():
            for number, variable in enumerate(variables):
                variable.assign(self.arrays[f"{part}-{number}"])
        for name, state in self.states.items():
            vars(self.others[name]).update(state)
        best = [name for name in self.arrays if name.startswith("best-")]
        if best:
            self.others["EarlyStopping"].best_weights = [self.arrays[f"best-{n}"] for n in range(len(best))]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save the model, its optimizer, the callbacks and the history."""
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.checkpoint is None:
            return
        parts = {name: [v.numpy() for v in variables] for name, variables in self._variables().items()}
        parts["best"] = getattr(self.others.get("EarlyStopping"), "best_weights", None) or []
        states = {
            name: {key: getattr(other, key) for key in STATE[type(other)]}
            for name, other in self.others.items()
        }
        self.checkpoint.write(
            {f"{part}-{n}": array for part, arrays in parts.items() for n, array in enumerate(arrays)},
            {
                "epochs": epoch + 1,
                "stopped": self.model.stop_training,
                "history": self.history,
                "seconds": self.seconds(),
                "callbacks": states,
            },
        )

    def seconds(self) -> dict[str, float]:
        """The wall and CPU seconds of the training, with those before it was interrupted."""
        now = {"wall": time.perf_counter(), "cpu": time.process_time()}
        return {clock: self.spent[clock] + now[clock] - self.started[clock] for clock in now}

    def _variables(self) -> dict[str, list[Any]]:
        actions = getattr(self.model, "after_step", [])
        added = [variable for action in actions for variable in action.variables]
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables, "added": added}
