"""Where a training stands, kept after each epoch, so that one that was killed goes on from there.

.pipeline/checkpoints/VARIANT-SEED/epoch-N/ holds the arrays of the model, its optimizer and its callbacks,
and as facts the rest, under the digest of what decides the weights. It is no output of DVC's, which deletes
those before a stage runs. `evaluate` removes it: by then DVC has the model.
"""

import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.arrays import read_arrays, read_facts, write_arrays
from pipeline.errors import PipelineError
from pipeline.learning.backend import keras
from pipeline.paths import CHECKPOINTS
from pipeline.running.lock import is_free

# What Keras's callbacks know besides their settings.
STATE = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one training's checkpoints; `key` is the digest of all that decides its weights."""

    folder: Path
    key: str

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest whole checkpoint's arrays and facts. None, and nothing is left, where there is none
        with this key."""
        for kept in sorted(self.folder.glob("epoch-?????"), reverse=True):
            try:
                facts = read_facts(kept)
                if facts["key"] == self.key:
                    return read_arrays(kept), facts
            except PipelineError as error:
                print(f"{self.folder.name}: passes over a checkpoint: {error}", flush=True)
        remove(self.folder)
        return None

    def write(self, epochs: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Keep the state after so many epochs, whole or not at all, in place of the earlier ones."""
        kept = self.folder / f"epoch-{epochs:05d}"
        write_arrays(kept, arrays, key=self.key, epochs=epochs, **facts)
        for earlier in self.folder.iterdir():
            if earlier != kept:
                shutil.rmtree(earlier)


def remove(folder: Path) -> None:
    """Forget a training's checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_others(names: Collection[str]) -> list[str]:
    """Forget the checkpoints of all but these trainings, unless one runs; which ones those were."""
    kept = sorted(folder.name for folder in CHECKPOINTS.glob("*"))
    others = [name for name in kept if name not in names and is_free(f"train-{name}")]
    for name in others:
        remove(CHECKPOINTS / name)
    return others


class Resumable(keras.callbacks.Callback):
    """Keeps a fit's state after each epoch, and takes up what was kept, as if it had never stopped.

    It stands after the callbacks whose state it keeps. What is random in a layer comes from the model's
    seed generators, which are among its variables; the order of the images depends on (seed, epoch).
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
        """Take up the checkpoint, where there is one, and start the clocks."""
        self.started = {"wall": time.perf_counter(), "cpu": time.process_time()}
        if not self.epochs:
            return
        print(f"{self.model.name}: goes on after epoch {self.epochs}", flush=True)
        for part, variables in self._variables().items():
            for number, variable in enumerate(variables):
                variable.assign(self.arrays[f"{part}-{number}"])
        for name, state in self.states.items():
            vars(self.others[name]).update(state)
        best = [name for name in self.arrays if name.startswith("best-")]
        if best:
            kept = [np.array(self.arrays[f"best-{number}"]) for number in range(len(best))]
            self.others["EarlyStopping"].best_weights = kept

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep everything."""
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
            epoch + 1,
            {f"{part}-{n}": array for part, arrays in parts.items() for n, array in enumerate(arrays)},
            {
                "stopped": self.model.stop_training,
                "history": self.history,
                "seconds": self.seconds(),
                "callbacks": states,
            },
        )

    def seconds(self) -> dict[str, float]:
        """The wall and CPU seconds of the fit, with those before it was interrupted."""
        now = {"wall": time.perf_counter(), "cpu": time.process_time()}
        return {clock: self.spent[clock] + now[clock] - self.started[clock] for clock in now}

    def _variables(self) -> dict[str, list[Any]]:
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
