"""Predictions for images, as rows for programs and as a figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.scoring import figures
from pipeline.scoring.metrics import cross_entropy


@dataclass(frozen=True)
class Query:
    """An image, uint8 (32, 32, 3), with its name, and its label if that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@dataclass(frozen=True)
class Answer:
    """A model's prediction for an image: probabilities (classes,)."""

    query: Query
    classes: list[str]
    probabilities: np.ndarray

    @property
    def actual(self) -> dict[str, Any]:
        """The class of a test image, and the prediction's cross-entropy in nats."""
        if self.query.label is None:
            return {}
        nats = cross_entropy(np.array([self.query.label]), self.probabilities[None])
        return {"actual": self.classes[self.query.label], "cross_entropy": float(nats[0])}

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def as_dict(self) -> dict[str, Any]:
        """The prediction as JSON-like data."""
        return {
            "image": self.query.name,
            "label": self.label,
            "confidence": float(self.probabilities.max()),
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
        } | self.actual


def as_table(answers: list[Answer]) -> pd.DataFrame:
    """A row for each image, with a column for the probability of each class."""
    rows = [answer.as_dict() for answer in answers]
    probabilities = pd.DataFrame([row["probabilities"] for row in rows])
    return pd.concat([pd.DataFrame(rows).drop(columns="probabilities"), probabilities], axis=1)


def plot(answers: list[Answer]) -> Figure:
    """A row for each image: the pixels that the network sees, and the predicted distribution."""
    queries = [answer.query for answer in answers]
    return figures.predictions(
        np.stack([query.pixels for query in queries]),
        np.stack([answer.probabilities for answer in answers]),
        answers[0].classes,
        [query.name for query in queries],
        [query.label for query in queries],
    )
