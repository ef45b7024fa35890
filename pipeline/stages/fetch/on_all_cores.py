"""Does something with each of many images, on all cores, with a progress bar in a terminal."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """The results for all items, in threads: for functions that spend their time without Python's lock."""
    with ThreadPoolExecutor(cpu_count()) as threads:
        found = threads.map(function, items)
        return list(tqdm(found, title, len(items), unit=" images", disable=None, leave=False))
