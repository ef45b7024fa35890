"""Every figure, as a function of arrays and tables that returns a Matplotlib figure."""

import numpy as np
from matplotlib.figure import Figure


def sample_grid(images: np.ndarray, labels: np.ndarray, classes: list[str]) -> Figure:
    """The first eight images of each class, a row a class (of the first ten)."""
    shown = classes[:10]
    figure = Figure(figsize=(8, len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 8, squeeze=False)
    for label, row in enumerate(axes):
        for axis in row:
            axis.set_axis_off()
        for axis, index in zip(row, np.flatnonzero(labels == label), strict=False):
            axis.imshow(images[index])
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[])
        row[0].set_frame_on(False)
        row[0].set_ylabel(shown[label], rotation=0, ha="right", va="center")
    return figure
