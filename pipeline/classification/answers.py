"""A model's predictions for images: as rows for programs, and as a figure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.classification.inference import LoadedModel
from pipeline.scoring import figures
from pipeline.scoring.metrics import cross_entropy


@dataclass(frozen=True)
class Query:
    """An image, uint8 (size, size, 3), with its name, and its label if that is known."""

    name: str
    pixels: np.ndarray
    label: int | None = None


@dataclass(frozen=True)
class Answers:
    """The images that a model was asked about, and its probabilities (n, classes)."""

    classes: list[str]
    queries: list[Query]
    probabilities: np.ndarray

    @classmethod
    def of(cls, model: LoadedModel, queries: list[Query]) -> "Answers":
        """What a model predicts for images."""
        pixels = np.stack([query.pixels for query in queries])
        return cls(model.classes, queries, model.probabilities(pixels))

    def rows(self, top: int | None = None) -> Iterator[dict[str, Any]]:
        """Each prediction as JSON-like data, with all classes in their order or the `top` most probable ones.

        For a test image with its class, and the prediction's cross-entropy in nats.
        """
        for query, row in zip(self.queries, self.probabilities, strict=True):
            shown = range(len(row)) if top is None else (-row).argsort(kind="stable")[:top]
            answer: dict[str, Any] = {
                "image": query.name,
                "label": self.classes[int(row.argmax())],
                "confidence": float(row.max()),
                "probabilities": {self.classes[number]: float(row[number]) for number in shown},
            }
            if query.label is not None:
                nats = cross_entropy(np.array([query.label]), row[None])[0]
                answer |= {"actual": self.classes[query.label], "cross_entropy": float(nats)}
            yield answer

    def table(self, top: int | None = None) -> pd.DataFrame:
        """A row for each image, with a column for the probability of each class."""
        rows = pd.DataFrame(self.rows(top))
        return rows.drop(columns="probabilities").join(pd.DataFrame(list(rows["probabilities"])))

    def plot(self) -> Figure:
        """A row for each image: the pixels that the network sees, and the predicted distribution."""
        return figures.predictions(
            np.stack([query.pixels for query in self.queries]),
            self.probabilities,
            self.classes,
            [query.name for query in self.queries],
            [query.label for query in self.queries],
        )
