"""What a model says of images: as rows for programs, and as a figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.scoring.metrics import cross_entropy


@dataclass(frozen=True)
class Asked:
    """An image, uint8 (32, 32, 3), with what names it, and its label where that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of an image: probabilities (classes,)."""

    asked: Asked
    classes: list[str]
    probabilities: np.ndarray

    @property
    def actual(self) -> dict[str, Any]:
        """The class that a test image is of, and the prediction's cross-entropy in nats."""
        if self.asked.label is None:
            return {}
        nats = cross_entropy(np.array([self.asked.label]), self.probabilities[None])
        return {"actual": self.classes[self.asked.label], "cross_entropy": float(nats[0])}

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "image": self.asked.name,
            "label": self.label,
            "confidence": float(self.probabilities.max()),
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
        } | self.actual


def as_table(answers: list[Answer]) -> pd.DataFrame:
    """A row an image, its probabilities in columns that the classes name."""
    rows = [answer.as_dict() for answer in answers]
    probabilities = pd.DataFrame([row["probabilities"] for row in rows])
    return pd.concat([pd.DataFrame(rows).drop(columns="probabilities"), probabilities], axis=1)


def plot(answers: list[Answer]) -> Figure:
    """A row an image: the pixels that the network sees, the predicted distribution and the actual one."""
    columns = 3 if any(answer.actual for answer in answers) else 2
    figure = Figure(figsize=(2.2 + 5 * (columns - 1), 2.4 * len(answers)), layout="constrained")
    rows = figure.subplots(len(answers), columns, squeeze=False, width_ratios=[2, *[5] * (columns - 1)])
    for answer, (image, *bars) in zip(answers, rows, strict=True):
        image.imshow(answer.asked.pixels)
        image.set_title(answer.asked.name, fontsize="medium")
        image.set_axis_off()
        actual = answer.actual
        nats = f" (cross-entropy {actual['cross_entropy']:.3f} nats)" if actual else ""
        draw_bars(bars[0], answer.classes, answer.probabilities, f"predicted: {answer.label}{nats}")
        if actual:
            one_hot = [float(name == actual["actual"]) for name in answer.classes]
            draw_bars(bars[1], answer.classes, one_hot, f"actual: {actual['actual']}")
        elif len(bars) > 1:
            bars[1].set_axis_off()
    return figure


def draw_bars(axis: Axes, classes: list[str], heights: Any, title: str) -> None:
    """A distribution over the classes."""
    axis.bar(classes, heights)
    axis.set_ylim(0, 1)
    axis.set_title(title, fontsize="medium")
    axis.tick_params(axis="x", labelsize="small", rotation=45 if max(map(len, classes)) > 3 else 0)
