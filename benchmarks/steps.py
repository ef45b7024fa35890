"""An epoch with its validation pass: the pipeline against the documents' notebooks, variant by variant.

Two processes a variant, one for each side, take turns epoch by epoch (A B A B), so that a change in the
machine's speed meets both. The first epoch of each, which builds the graph, is not counted.
"""

import multiprocessing
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.measure import summary
from pipeline.settings.hyperparameters import Hyperparameters, Variant
from pipeline.settings.reading import read_params

EPOCHS, LEAST, SECONDS = 8, 2, 12  # counted of each side: so many, or fewer where they take long

# The pipeline's side, one thread each.
FLOAT32, BFLOAT16 = ({"threads": 1, "precision": name} for name in ("float32", "mixed_bfloat16"))


def compare(folder: Path, sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """For each variant, each side's wall and CPU seconds an epoch.

    `sides` names each side's settings: {} for the notebook, `threads` and `precision` for the pipeline.
    """
    params = read_params(Hyperparameters)
    found = {}
    for name, variant in distinct(params).items():
        rounds = counted(variant, folder, list(sides.values()))
        found[name] = {
            side: {clock: summary([turn[number][clock] for turn in rounds]) for clock in ("wall", "cpu")}
            for number, side in enumerate(sides)
        }
        print(f"bench: step: {name}: {told(found[name])}", flush=True)
    return found


def distinct(params: Hyperparameters) -> dict[str, Variant]:
    """The variants whose epochs differ in network, optimizer or batch size, under their names together."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    blocks = params.variants | params.finetune.variants
    for name, variant in blocks.items():
        groups.setdefault((variant.network, variant.optimizer.name, variant.batch_size), []).append(name)
    return {", ".join(names): blocks[names[0]] for names in groups.values()}


def counted(variant: Variant, folder: Path, sides: list[dict[str, Any]]) -> list[list[dict[str, float]]]:
    """The seconds of each turn; more of short ones, as a notebook's epochs end at the tick of a clock."""
    rounds: list[list[dict[str, float]]] = []
    started = time.perf_counter()
    with closing(taking_turns(variant, folder, EPOCHS, sides)) as turns:
        for turn in turns:
            rounds.append(turn)
            if len(rounds) >= LEAST and time.perf_counter() - started > SECONDS:
                break
    return rounds


def taking_turns(
    variant: Variant, folder: Path, epochs: int, sides: list[dict[str, Any]]
) -> Generator[list[dict[str, float]]]:
    """After one epoch each that is not counted, each side's seconds for one epoch, `epochs` times."""
    context = multiprocessing.get_context("spawn")
    with started(context, variant, folder, epochs + 1, sides) as connections:
        for number in range(epochs + 1):
            turn = []
            for connection in connections:
                connection.send("go")
                turn.append(connection.recv())
            if number > 0:
                yield turn


@contextmanager
def started(
    context: Any, variant: Variant, folder: Path, epochs: int, sides: list[dict[str, Any]]
) -> Iterator[list[Connection]]:
    """A waiting process for each side."""
    pipes = [context.Pipe() for _ in sides]
    processes = [
        context.Process(target=take_turns, args=(there, variant, folder, epochs, side))
        for (_, there), side in zip(pipes, sides, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield [here for here, _ in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def take_turns(
    connection: Connection, variant: Variant, folder: Path, epochs: int, side: dict[str, Any]
) -> None:
    """One side's training, an epoch at each turn, in a process of its own."""
    import numpy as np

    from benchmarks import notebook
    from pipeline.learning import models, training
    from pipeline.learning.backend import keras
    from pipeline.learning.twin import twin

    class Turns(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            connection.recv()
            self.started = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            wall, cpu = self.started
            connection.send({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        if not side:
            notebook.fit(variant, epochs, folder, [Turns()])
            return
        training.make_deterministic(0, side["threads"])
        train, validation = (
            training.Images(np.load(folder / part / "images.npy"), np.load(folder / part / "labels.npy"))
            for part in ("train", "validation")
        )
        unstopped = {"epochs": epochs, "early_stopping": None, "reduce_learning_rate": None}
        model = twin(models.build(variant.network, 10, "model"), side["precision"], side["threads"])
        training.fit(model, variant.model_copy(update=unstopped), train, validation, 0, Turns())


def told(sides: dict[str, Any]) -> str:
    """A line: each side's median seconds, and the ratio to the first side."""
    first = next(iter(sides.values()))
    return "; ".join(
        f"{name} {clocks['wall']['median']:.2f} s, CPU {clocks['cpu']['median']:.2f} "
        f"({clocks['wall']['median'] / first['wall']['median']:.2f}, "
        f"{clocks['cpu']['median'] / first['cpu']['median']:.2f})"
        for name, clocks in sides.items()
    )
