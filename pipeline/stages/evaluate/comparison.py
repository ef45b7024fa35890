"""Tables of all models, which `dvc plots show` draws on common axes."""

import numpy as np
import pandas as pd

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.shared.stored_probabilities import read_probabilities
from pipeline.support.json_and_csv import read_table
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import EVALUATION, PREPARED


def write_comparison(models: list[ModelFiles]) -> None:
    """Write evaluation/{curves,roc,confusion}.csv, with the rows of each model that has been evaluated."""
    evaluated = [one for one in models if one.evaluation.is_dir() and one.scores.is_file()]
    scored = [files for files in evaluated if files.divergence() is None]
    for title, chosen, read in (
        ("curves", evaluated, ModelFiles.epochs),
        ("roc", scored, mean_roc),
        ("confusion", scored, confusion),
    ):
        tables = [read(files).assign(model=files.name) for files in chosen]
        table = pd.concat(tables) if tables else pd.DataFrame(columns=["model"])
        table.to_csv(EVALUATION / f"{title}.csv", index=False, lineterminator="\n")


def mean_roc(files: ModelFiles) -> pd.DataFrame:
    """The mean of the classes' ROC curves."""
    columns = {"class": str, "false_positive_rate": float, "true_positive_rate": float}
    points = read_table(files.evaluation / "roc.csv", columns)
    return points.groupby("false_positive_rate")[["true_positive_rate"]].mean().reset_index()


def confusion(files: ModelFiles) -> pd.DataFrame:
    """The number of test images for each pair of an actual and a predicted class that occurs."""
    classes = np.array(read_facts(PREPARED / "split")["classes"])
    predicted = read_probabilities(files, "test").argmax(axis=1)
    labels = {"actual": read_arrays(PREPARED / "test")["labels"], "predicted": predicted}
    images = pd.DataFrame({name: classes[values] for name, values in labels.items()})
    return images.groupby(["actual", "predicted"], as_index=False).size().rename(columns={"size": "images"})
