"""The live view of stages that run side by side.

A terminal shows a line for each running stage, and above them one for each that ended. Elsewhere every line
of every stage is printed, after the stage's name.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

STYLES = {"runs": "dim", "done": "green", "failed": "bold red"}


@dataclass
class Row:
    """A running stage: when it started, and what it said last."""

    started: float = field(default_factory=time.monotonic)
    latest: str = ""


class View:
    """The stages of one run: to be entered before the first starts, and left when the last has ended."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.drawn = console.is_terminal and not console.is_dumb_terminal
        self.started = time.monotonic()
        self.total = total
        self.ended: Counter[str] = Counter()
        self.rows: dict[str, Row] = {}
        self.live = Live(get_renderable=self._lines, console=console, transient=True)

    def __enter__(self) -> "View":
        if self.drawn:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def start(self, stage: str) -> None:
        """Give a stage its line."""
        self.rows[stage] = Row()

    def line(self, stage: str, line: str, whole: bool) -> None:
        """Take what a stage wrote; a line that is not whole, a progress bar say, is for terminals only."""
        self.rows[stage].latest = line
        if whole and not self.drawn:
            self.print(f"{stage}: {line}")

    def end(self, stage: str, state: str, last: str) -> None:
        """Replace a stage's line by its end, `done` or `failed`, with the last line that it printed."""
        row = self.rows.pop(stage)
        self.ended[state] += 1
        if self.drawn:
            self.live.refresh()  # or its line would stand below as well until the next drawing
            self.console.print(self._line(state, stage, Row(row.started, last)))
        else:
            self.print(f"{stage}: {state} after {clock(row)}")

    def print(self, line: str) -> None:
        """Print a line, above those that are drawn."""
        self.console.print(Text(line), soft_wrap=True)

    def _lines(self) -> Text:
        """A line for each running stage, and the counts: drawn four times a second, in another thread."""
        rows = list(self.rows.items())
        waiting = max(0, self.total - self.ended.total() - len(rows))
        counts = {"done": 0, **self.ended, "running": len(rows), "waiting": waiting}
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines = [self._line("runs", stage, row) for stage, row in rows]
        return Text("\n", no_wrap=True).join([*lines, Text(f"{summary}  {clock(self)}", "dim")])

    def _line(self, state: str, stage: str, row: Row) -> Text:
        """A line as wide as the terminal at most."""
        line = Text(no_wrap=True, overflow="crop")
        line.append(f"{state:<6}", STYLES[state]).append(f"  {clock(row):>7}  ").append(stage, "cyan")
        latest = Text.from_ansi(_without_variant(stage, row.latest)).plain
        return line.append("  " + shortened(latest, self.console.width - len(line) - 2))


def clock(since: Row | View) -> str:
    """The time since it started: 0:05, 12:34 or 1:02:03."""
    minutes, seconds = divmod(int(time.monotonic() - since.started), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def shortened(line: str, width: int) -> str:
    """A line without its middle fields if it is too long; two spaces divide fields.

    An epoch's line keeps its first field, the epoch, and its last, the time left.
    """
    fields = line.split("  ")
    while len("  ".join(fields)) > width and len(fields) > 2:
        del fields[1]
    line = "  ".join(fields)
    return line if len(line) <= width else line[: width - 1] + "…"


def _without_variant(stage: str, line: str) -> str:
    """A line without the variant's name at its start, which the stage's name contains."""
    name = stage.split("@")[-1]
    return line.removeprefix(f"{name}: ").removeprefix(f"{name.rsplit('-', 1)[0]}  ")
