"""Matplotlib figures that read on a light and on a dark page, and show every name as it is written."""

from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK = "#797979"  # has the same contrast, 4.3, with white and with the dark page of the report
COUNTS = LinearSegmentedColormap.from_list("counts", [(0.12, 0.47, 0.71, 0), (0.12, 0.47, 0.71, 1)])

rcParams.update(
    {
        "text.parse_math": False,  # otherwise a class `$5_to_$10` is drawn as a formula
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    }
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")
