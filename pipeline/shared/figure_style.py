"""Matplotlib figures that show every name as it is written."""

from matplotlib import rcParams
from matplotlib.figure import Figure

rcParams["text.parse_math"] = False  # otherwise a class `$5_to_$10` is drawn as a formula


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")
