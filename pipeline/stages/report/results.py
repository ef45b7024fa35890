"""What the report shows, read from the files of all models."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.core.arrays import read_facts
from pipeline.core.recipe import Recipe
from pipeline.shared.selection import Selection, read_scores, read_selection
from pipeline.shared.stored_probabilities import checked_scores, read_right
from pipeline.stages.report.controlled import BASE
from pipeline.stages.report.correctness import Correctness
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import Number, read_table
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import DIAGNOSIS, PREPARED, SELECTION

# The columns of the tables that are read; others hold numbers.
DIAGNOSIS_COLUMNS: dict[str, dict[str, Any]] = {
    "near_duplicates": {"part": str, "image": int, "of_part": str, "difference": float},
    "resemblance": {"part": str, "similar": int, "images": int},
    "label_errors": {"image": int},
    "training_accuracy": {"model": str, "accuracy": float, "images": int},
    "robustness": {"corruption": str, "model": str, "strength": Number, "accuracy": float, "images": int},
}
BALANCE = {"class": str, "train": int, "validation": int, "test": int}
CONFUSED = {"one": str, "other": str, "images": int, "one_as_other": int, "other_as_one": int}
PER_CLASS = {"class": str} | dict.fromkeys(("precision", "recall", "f1", "auc", "support"), float)


@dataclass(frozen=True)
class Results:
    """The facts of the split, the chosen model, and tables of all models that have scores."""

    facts: dict[str, Any]
    models: list[ModelFiles]
    balance: pd.DataFrame  # images by class and part
    table: pd.DataFrame  # a row for each variant, see `summarize`
    settings: dict[str, dict[str, Any]]  # of each variant, in the order of params.yaml
    histories: dict[str, pd.DataFrame]  # by VARIANT-SEED, as is `per_class`
    per_class: dict[str, pd.DataFrame]
    confused: pd.DataFrame  # pairs of classes, of the chosen model
    calibration: pd.DataFrame  # the scores of the chosen model without and with temperature scaling
    selection: Selection
    diverged: dict[str, str]  # the reason for each VARIANT-SEED that diverged, which no table has
    diagnosis: dict[str, pd.DataFrame]  # the tables of `diagnose`
    validation: Correctness
    test: Correctness

    @property
    def chosen(self) -> ModelFiles:
        """The model that was chosen."""
        return self.selection.files

    @property
    def f1(self) -> pd.DataFrame:
        """F1 of each class (columns) for each variant (rows), its mean over seeds."""
        f1 = pd.DataFrame({name: table["f1"] for name, table in self.per_class.items()}).T
        return f1.groupby([name.rpartition("-")[0] for name in f1.index], sort=False).mean()


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
    scores["views_accuracy"] = [accuracy_with_views(one.metrics()) for one in models]
    return Results(
        facts=facts,
        models=models,
        balance=read_table(PREPARED / "class_balance.csv", BALANCE),
        table=summarize(scores, published if facts["source"] == "cifar10" else {}),
        settings={one.variant: settings_of(one) for one in models},
        histories=histories,
        per_class={
            one.name: read_table(one.evaluation / "per_class.csv", PER_CLASS).set_index("class")
            for one in models
        },
        confused=read_table(chosen.evaluation / "most_confused.csv", CONFUSED),
        calibration=read_table(chosen.evaluation / "temperature.csv", {}),
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


def accuracy_with_views(scores: dict[str, Any]) -> float:
    """The test accuracy with test-time views, of a model's scores; NaN if it has no views."""
    return next((of["accuracy"] for part, of in scores.items() if part.startswith("test_")), float("nan"))


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
