"""Shows the trainings that run: a bar for each in a terminal, elsewhere a line for each epoch."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class View:
    """Shows the jobs of one run, from the start to the end of its `with` block."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.drawn = console.is_terminal and not console.is_dumb_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[accuracy]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            expand=True,
            speed_estimate_period=24 * 3600,  # an epoch may take minutes
        )
        self.total = self.progress.add_task("[bold]all[/]", total=total, accuracy="")
        self.bars: dict[str, TaskID] = {}
        self.started: dict[str, float] = {}

    def __enter__(self) -> "View":
        if self.drawn:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, name: str) -> None:
        """Give a job its bar."""
        self.started[name] = time.monotonic()
        self.bars[name] = self.progress.add_task(name, total=None, accuracy="")

    def show(self, name: str, event: str, value: Any) -> None:
        """Show news of a job: see `Pool.events`."""
        if event == "report":
            epoch, epochs, accuracy = value
            self.progress.update(self.bars[name], completed=epoch, total=epochs, accuracy=f"{accuracy:.4f}")
        elif event == "line":
            if not (self.drawn and "  epoch " in value):  # which the bar shows
                self.print(f"{name}: {value}")
        else:
            self.progress.remove_task(self.bars.pop(name))
            self.progress.advance(self.total, event != "died")
            reason = "" if event == "done" else f": {value}"
            self.print(f"{name}: {event} after {clock(time.monotonic() - self.started[name])}{reason}")

    def print(self, line: str) -> None:
        """Print a line, above those that are drawn."""
        self.console.print(Text(line), soft_wrap=True)


def clock(seconds: float) -> str:
    """A time as 0:05, 12:34 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
