"""Does something with each of many images, on all cores, with a progress bar in a terminal."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 512  # results at most wait for their reader


def on_all_cores(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, quiet: bool = False
) -> Iterator[Result]:
    """The results for all items, in their order, from threads: for functions that run without Python's lock.

    `quiet` hides the progress bar, as does an output for errors that is no terminal.
    """
    bar = tqdm(desc=title, total=len(items), unit=" images", disable=quiet or None, leave=False)
    with ThreadPoolExecutor(cpu_count()) as threads, bar:
        for start in range(0, len(items), AHEAD):
            for result in threads.map(function, items[start : start + AHEAD]):
                bar.update()
                yield result
