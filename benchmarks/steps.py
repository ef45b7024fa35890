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
from typing import TYPE_CHECKING, Any

from benchmarks.measure import summary
from pipeline.params import Block, Params

if TYPE_CHECKING:
    from pipeline.core.recipe import Recipe

FACTS = {"image_shape": [32, 32, 3], "classes": range(10), "counts": {"train": 45_000}}
EPOCHS, LEAST, SECONDS = 8, 2, 12  # counted of each side: so many, or fewer where they take long

# The pipeline's side, one thread each.
FLOAT32, BFLOAT16 = ({"threads": 1, "precision": name} for name in ("float32", "mixed_bfloat16"))


def compare(folder: Path, variants: dict[str, Block], sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """For each variant, each side's wall and CPU seconds an epoch.

    `sides` names each side's settings: {} for the notebook, `threads` and `precision` for the pipeline.
    """
    found = {}
    for name, variant in variants.items():
        rounds = counted(variant, folder, list(sides.values()))
        found[name] = {
            side: {clock: summary([turn[number][clock] for turn in rounds]) for clock in ("wall", "cpu")}
            for number, side in enumerate(sides)
        }
        print(f"bench: step: {name}: {in_words(found[name])}", flush=True)
    return found


def distinct(params: Params) -> dict[str, Block]:
    """The variants whose epochs differ in network, optimizer or batch size, under their names together."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key, variant in params.blocks.items():
        decisive = (str(variant.network), variant.optimizer.name, variant.batch_size)
        groups.setdefault(decisive, []).append(key)
    return {
        ", ".join(key.rpartition(".")[2] for key in keys): params.blocks[keys[0]] for keys in groups.values()
    }


def plain(params: Params) -> dict[str, Block]:
    """Those of the distinct variants that a notebook's plain `fit` can train."""
    return {name: variant for name, variant in distinct(params).items() if variant.whitening is None}


def forward_passes(train: float, validation: float) -> float:
    """An epoch's work, in forward passes of an image.

    Training on an image takes three: one, the gradients of the weights and those of the inputs.
    """
    return 3 * train + validation


def counted(variant: Block, folder: Path, sides: list[dict[str, Any]]) -> list[list[dict[str, float]]]:
    """The seconds of each turn: EPOCHS turns, or fewer (at least LEAST) once SECONDS have passed."""
    rounds: list[list[dict[str, float]]] = []
    started = time.perf_counter()
    with closing(taking_turns(variant, folder, EPOCHS, sides)) as turns:
        for turn in turns:
            rounds.append(turn)
            if len(rounds) >= LEAST and time.perf_counter() - started > SECONDS:
                break
    return rounds


def taking_turns(
    variant: Block, folder: Path, epochs: int, sides: list[dict[str, Any]]
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
    context: Any, variant: Block, folder: Path, epochs: int, sides: list[dict[str, Any]]
) -> Iterator[list[Connection]]:
    """A waiting process for each side."""
    pipes = [context.Pipe() for _ in sides]
    recipes = [make_recipe(variant, epochs, side) if side else None for side in sides]
    processes = [
        context.Process(target=take_turns, args=(there, variant, folder, epochs, chosen))
        for (_, there), chosen in zip(pipes, recipes, strict=True)
    ]
    for process, (_, there) in zip(processes, pipes, strict=True):
        process.start()
        there.close()  # or `recv` would wait for ever if the process dies
    try:
        yield [here for here, _ in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def make_recipe(variant: Block, epochs: int, side: dict[str, Any]) -> "Recipe":
    """The recipe of a variant with a side's threads and precision, which stops after `epochs`."""
    from pipeline.stages.recipes.stage import recipe

    params = Params.read()
    params = params.model_copy(update={"training": params.training.model_copy(update=side)})
    unstopped = {"epochs": epochs, "early_stopping": None, "reduce_learning_rate": None, "precision": None}
    return recipe("variants.model", variant.model_copy(update=unstopped), params, FACTS)


def take_turns(
    connection: Connection, variant: Block, folder: Path, epochs: int, chosen: "Recipe | None"
) -> None:
    """One side's training, an epoch at each turn, in a process of its own: a notebook's without a recipe."""
    import numpy as np

    from benchmarks import notebook
    from pipeline.core import hardware
    from pipeline.core.backend import keras
    from pipeline.stages.train import keras_fit
    from pipeline.stages.train.batches import Images
    from pipeline.stages.train.training import make_twin

    class Turns(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            connection.recv()
            self.started = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            wall, cpu = self.started
            connection.send({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        if chosen is None:
            notebook.fit(variant, epochs, folder, [Turns()])
            return
        hardware.make_deterministic(0, chosen.threads)
        train, validation = (
            Images(np.load(folder / part / "images.npy"), np.load(folder / part / "labels.npy"))
            for part in ("train", "validation")
        )
        model = make_twin(chosen.build(), chosen, train)
        keras_fit.fit(model, chosen, train, validation, 0, Turns())


def in_words(sides: dict[str, Any]) -> str:
    """A line: each side's median seconds, and the ratio to the first side."""
    first = next(iter(sides.values()))
    return "; ".join(
        f"{name} {clocks['wall']['median']:.2f} s, CPU {clocks['cpu']['median']:.2f} "
        f"({clocks['wall']['median'] / first['wall']['median']:.2f}, "
        f"{clocks['cpu']['median'] / first['cpu']['median']:.2f})"
        for name, clocks in sides.items()
    )
