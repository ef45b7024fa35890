"""What the report shows, read from the files of all models."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.core.recipe import Recipe
from pipeline.shared.checked_scores import checked_scores
from pipeline.shared.selection import Selection, read_scores, read_selection
from pipeline.shared.served_predictor import served_predictor
from pipeline.shared.stored_probabilities import read_probabilities, read_right, views_of
from pipeline.stages.report.controlled import BASE
from pipeline.stages.report.correctness import Correctness
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import Number, read_table
from pipeline.support.model_files import SERVED, ModelFiles, all_models
from pipeline.support.paths import DIAGNOSIS, PREPARED, SELECTION

NAMED = {"image": str, "of_image": str}
# The columns of the tables that are read; others hold numbers.
DIAGNOSIS_COLUMNS: dict[str, dict[str, Any]] = {
    "near_duplicates": {"part": str, "index": int, "of_part": str, "difference": float} | NAMED,
    "resemblance": {"part": str, "similar": int, "images": int},
    "label_errors": {"index": int, "label": str, "predicted": str, "image": str},
    "training_accuracy": {"model": str, "accuracy": float, "images": int},
    "robustness": {"corruption": str, "model": str, "strength": Number, "accuracy": float, "images": int},
}
BALANCE = {"class": str, "train": int, "validation": int, "test": int}
CONFUSED = {"one": str, "other": str, "images": int, "one_as_other": int, "other_as_one": int}
CALIBRATION = dict.fromkeys(("temperature", "loss", "brier", "calibration_error"), float)
CALIBRATION |= {"low": Number, "high": Number}  # missing if the temperature is set
COVERAGE = {"threshold": float, "coverage": float, "accuracy": float, "served": bool}
PER_CLASS = {"class": str} | dict.fromkeys(("precision", "recall", "f1", "auc", "support"), float)


@dataclass(frozen=True)
class Results:
    """The facts of the split, the chosen model, and tables of all models that have scores."""

    facts: dict[str, Any]
    models: list[ModelFiles]
    balance: pd.DataFrame  # images by class and part
    table: pd.DataFrame  # a row for each variant, see `summarize`
    scores: pd.DataFrame  # of each variant (rows) the means over seeds, such as test_loss, with one view
    settings: dict[str, dict[str, Any]]  # of each variant, in the order of params.yaml
    histories: dict[str, pd.DataFrame]  # by VARIANT-SEED
    recall: pd.DataFrame  # of each class (columns) for each variant (rows), its mean over seeds
    f1: pd.DataFrame  # likewise
    per_class: pd.DataFrame  # of the chosen model
    confused: pd.DataFrame  # pairs of classes, of the chosen model
    calibration: pd.DataFrame  # the scores of the chosen model without and with its temperature
    coverage: pd.DataFrame  # its accuracy on the images that it would answer, by the least confidence
    right: np.ndarray  # whether it is right about each test image, as it is served
    served_validation: float  # its validation accuracy as it is served
    selection: Selection
    diverged: dict[str, str]  # the reason for each VARIANT-SEED that diverged, which no table has
    diagnosis: dict[str, pd.DataFrame]  # the tables of `diagnose`
    validation: Correctness
    test: Correctness

    @property
    def chosen(self) -> ModelFiles:
        """The model that was chosen."""
        return self.selection.files


def read_results(published: dict[str, float]) -> Results:
    """Everything that the report shows, of the models that params.yaml asks for."""
    files, selection, facts = all_models(), read_selection(), read_facts(PREPARED / "split")
    scores = read_scores(files)
    diverged = {one.name: reason for one in files if (reason := one.divergence()) is not None}
    models = [one for one in files if one.name not in diverged]
    for one in models:
        checked_scores(one)
    if (chosen := selection.files) not in models:
        raise PipelineError(f"{SELECTION}: {chosen.name}: has no scores; run `dvc repro select`")
    histories = {one.name: one.epochs() for one in models}
    scores["parameters"] = [one.record().metrics["parameters"] for one in models]
    scores["epochs"] = [len(table) for table in histories.values()]
    diagnosis = read_diagnosis(chosen)
    scores["training_accuracy"] = fitted(diagnosis["training_accuracy"], models)
    scores["views_accuracy"] = [
        score if views_of(one) else np.nan
        for one, score in zip(models, scores["test_served_accuracy"], strict=True)
    ]
    return Results(
        facts=facts,
        models=models,
        balance=read_table(PREPARED / "class_balance.csv", BALANCE),
        table=summarize(scores, published if facts["source"] == "cifar10" else {}),
        scores=mean_scores(scores),
        settings={one.variant: settings_of(one) for one in models},
        histories=histories,
        **class_scores(models, facts["classes"]),
        per_class=read_table(chosen.evaluation / "per_class.csv", PER_CLASS).set_index("class"),
        confused=read_table(chosen.evaluation / "most_confused.csv", CONFUSED),
        calibration=read_table(chosen.evaluation / "temperature.csv", CALIBRATION),
        coverage=read_table(chosen.evaluation / "coverage.csv", COVERAGE),
        right=served_predictor(chosen, 1.0).right("test"),  # at any temperature
        served_validation=chosen.metrics()[f"validation{SERVED}"]["accuracy"],
        selection=selection,
        diverged=diverged,
        diagnosis=diagnosis,
        validation=Correctness(right_of(models, "validation")),
        test=Correctness(right_of(models, "test")),
    )


def settings_of(files: ModelFiles) -> dict[str, Any]:
    """The parameters of a training, with the variant that it starts from, if any."""
    base = Recipe.read(files.variant).init_from
    return files.record().params | ({} if base is None else {BASE: base})


def right_of(models: list[ModelFiles], part: str) -> pd.DataFrame:
    """Whether each model (columns: variant, seed) is right about each image of a part (rows)."""
    right = {(one.variant, one.seed): read_right(one, part) for one in models}
    return pd.DataFrame(right).rename_axis(columns=["variant", "seed"])


def class_scores(models: list[ModelFiles], classes: list[str]) -> dict[str, pd.DataFrame]:
    """`recall` and `f1` of each class (columns) for each variant (rows) on test images, means over seeds."""
    labels, rows = read_arrays(PREPARED / "test")["labels"], []
    for one in models:
        predicted = read_probabilities(one, "test").argmax(axis=1)
        counted = (labels[labels == predicted], labels, predicted)
        right, actual, found = (np.bincount(these, minlength=len(classes)) for these in counted)
        rows.append((right / np.maximum(actual, 1), 2 * right / np.maximum(actual + found, 1)))
    tables = (pd.DataFrame(of, columns=pd.Index(classes, name="class")) for of in zip(*rows, strict=True))
    means = (table.groupby([one.variant for one in models], sort=False).mean() for table in tables)
    return dict(zip(("recall", "f1"), means, strict=True))


def read_diagnosis(chosen: ModelFiles) -> dict[str, pd.DataFrame]:
    """The tables of `diagnose`. Raises PipelineError if they are of another model."""
    tables = {
        name: read_table(DIAGNOSIS / f"{name}.csv", columns, empty=True)
        for name, columns in DIAGNOSIS_COLUMNS.items()
    }
    if chosen.name not in set(tables["robustness"]["model"]):
        raise PipelineError(f"{DIAGNOSIS}: not of the chosen model {chosen.name}; run `dvc repro diagnose`")
    return tables


def fitted(table: pd.DataFrame, models: list[ModelFiles]) -> list[float]:
    """The accuracy of each model on training images, from the table of `diagnose`."""
    accuracies = table.set_index("model")["accuracy"]
    if missing := {one.name for one in models} - set(accuracies.index):
        path = DIAGNOSIS / "training_accuracy.csv"
        raise PipelineError(f"{path}: lacks {', '.join(sorted(missing))}; run `dvc repro diagnose`")
    return [accuracies[one.name] for one in models]


def mean_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Each score with one view, in the mean over seeds; the variant with the best accuracy comes first."""
    means = scores.groupby("variant", sort=False).mean(numeric_only=True)
    ordered = means.sort_values("validation_accuracy", ascending=False, kind="stable")
    return ordered.filter(regex=f"^(validation|test)_(?!{SERVED[1:]}_)")


def summarize(scores: pd.DataFrame, published: dict[str, float]) -> pd.DataFrame:
    """A row for each variant, best validation accuracy first: means over its seeds, their sd, and n."""
    groups = scores.groupby("variant", sort=False)
    table = groups[["parameters", "epochs", "training_accuracy"]].mean()
    for part in ("validation", "test"):
        table[part] = groups[f"{part}_accuracy"].mean()
        table[f"{part}_sd"] = groups[f"{part}_accuracy"].std()
    table["views"] = groups["views_accuracy"].mean()
    table["seeds"] = groups.size()
    table["published"] = pd.Series(published).reindex(table.index)
    return table.sort_values("validation", ascending=False, kind="stable")
