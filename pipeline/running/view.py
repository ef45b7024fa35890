"""Shows the trainings that run: a bar for each in a terminal, elsewhere a line for each epoch."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

EPOCH = "\x1eepoch "  # begins a line for the bar


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
    def bar(self, name: str) -> Iterator[Callable[[str], None]]:
        """Show a job while it runs; gives a function that shows a line which the job printed."""
        bar = self.add_task(name, total=None, accuracy="")

        def show(line: str) -> None:
            if line.startswith(EPOCH):
                epoch, epochs, accuracy = json.loads(line.removeprefix(EPOCH))
                self.update(bar, completed=epoch, total=epochs, accuracy=f"{accuracy:.4f}")
            elif self.disable or "  epoch " not in line:  # which the bar shows
                self.show(f"{name}: {line}")

        yield show
        self.remove_task(bar)

    def show(self, line: str) -> None:
        """Print a line, above the bars."""
        self.console.print(Text(line), soft_wrap=True)


def report(epoch: tuple[int, int, float]) -> None:
    """Print, in a job, what its bar shows: the epoch, the number of all epochs, the validation accuracy."""
    print(EPOCH + json.dumps(epoch))


def in_words(seconds: float) -> str:
    """A time as 0:00:05 or 12:34:56."""
    return str(timedelta(seconds=round(seconds)))
