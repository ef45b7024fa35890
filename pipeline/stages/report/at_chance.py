"""Variants that validate no better than guessing, and why that is no over-fitting."""

from typing import Any

from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import wilson


def guessing(results: Results) -> float:
    """The accuracy on validation images of always answering the most frequent class."""
    images = results.balance["validation"]
    return float(images.max() / images.sum())


def at_chance(results: Results) -> list[dict[str, Any]]:
    """The variants whose kept weights are no better than guessing, on training and validation images.

    Of each its `name`, its `validation` accuracy, its accuracy `in_training`, in the last epoch, with the
    statistics of each batch, and whether it `learned`, since that one is better than guessing.
    """
    chance, counts = guessing(results), results.facts["counts"]
    tried = int(results.diagnosis["training_accuracy"]["images"].iloc[0])
    found = []
    for name, row in results.table.iterrows():
        own = [results.histories[one.name] for one in results.models if one.variant == name]
        in_training = sum(table["accuracy"].iloc[-1] for table in own) / len(own)
        kept = [(row["validation"], counts["validation"]), (row["training_accuracy"], tried)]
        if all(wilson(*each)[0] <= chance for each in kept):
            learned = wilson(in_training, counts["train"])[0] > chance
            accuracies = {"validation": row["validation"], "in_training": in_training}
            found.append({"name": str(name), "learned": learned} | accuracies)
    return found
