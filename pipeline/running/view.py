"""Shows the trainings that run: a bar for each in a terminal, elsewhere a line for each epoch."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

EPOCH = "\x1eepoch "  # begins a line for the bar


class Epoch(NamedTuple):
    """What a job reports: its epochs so far and in all, its accuracy, and the CPU seconds of its process."""

    number: int
    epochs: int
    accuracy: float
    cpu_seconds: float

    @classmethod
    def of(cls, line: str) -> Self | None:
        """The epoch that a line reports; None for other lines."""
        return cls(*json.loads(line.removeprefix(EPOCH))) if line.startswith(EPOCH) else None


class View(Progress):
    """Shows the jobs of one run, from the start to the end of its `with` block."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[accuracy]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            expand=True,
            speed_estimate_period=24 * 3600,  # an epoch may take minutes
            disable=not console.is_terminal or console.is_dumb_terminal,
        )
        self.total = self.add_task("[bold]all[/]", total=total, accuracy="")

    @contextmanager
    def bar(self, name: str) -> Iterator["Bar"]:
        """Show a job while it runs, from the first line that it prints."""
        bar = Bar(self, name)
        try:
            yield bar
        finally:
            if bar.task is not None:
                self.remove_task(bar.task)

    def show(self, line: str) -> None:
        """Print a line, above the bars."""
        self.console.print(Text(line), soft_wrap=True)


class Bar:
    """Shows one job: called with each line that it printed."""

    def __init__(self, view: View, name: str) -> None:
        self.view, self.name = view, name
        self.task: TaskID | None = None
        self.started = time.monotonic()

    def __call__(self, line: str) -> None:
        """Show a line, or what it says of the epochs."""
        if self.task is None:
            self.task = self.view.add_task(self.name, total=None, accuracy="")
            self.started = time.monotonic()
        if epoch := Epoch.of(line):
            shown = f"{epoch.accuracy:.4f}" if epoch.number else ""
            self.view.update(self.task, completed=epoch.number, total=epoch.epochs, accuracy=shown)
        elif self.view.disable or "  epoch " not in line:  # which the bar shows
            self.view.show(f"{self.name}: {line}")

    def end(self, how: str) -> None:
        """Print how the job ended and how long it took."""
        self.view.show(f"{self.name}: {how} after {in_words(time.monotonic() - self.started)}")


def report(epoch: tuple[int, int, float]) -> None:
    """Print, in a job, its epochs so far and in all and the validation accuracy, for `Epoch.of`."""
    print(EPOCH + json.dumps([*epoch, time.process_time()]))


def in_words(seconds: float) -> str:
    """A time as 0:00:05 or 12:34:56."""
    return str(timedelta(seconds=round(seconds)))
