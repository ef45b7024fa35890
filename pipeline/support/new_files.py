"""Replace files, all or nothing.

A file that DVC tracks may be a link into its cache (`cache.type`), which other projects may share. So no file
is written in place: a new one is written beside it and renamed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a new file, which replaces the one at `path` at the end, unless an exception is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, UTF-8."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_table(path: Path, table: "pd.DataFrame", index: bool = False) -> None:
    """Write a table as CSV, with its index if asked to."""
    with replacing(path) as new:
        table.to_csv(new, index=index, lineterminator="\n")


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG: as `Figure.savefig`, which first draws it once more to lay it out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with replacing(path) as new:
        imsave(new, canvas.buffer_rgba(), format="png")
