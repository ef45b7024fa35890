"""What the report shows, read from the files of all models."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.core.arrays import read_facts
from pipeline.shared.selection import Selection, read_scores, read_selection
from pipeline.shared.stored_probabilities import read_right
from pipeline.stages.report.statistics import Resampled
from pipeline.support.errors import PipelineError
from pipeline.support.json_and_csv import Number, read_table
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import DIAGNOSIS, PREPARED, SELECTION

DIAGNOSIS_COLUMNS: dict[str, dict[str, Any]] = {
    "near_duplicates": {"part": str, "image": int, "of_part": str, "of_image": int, "similarity": float},
    "label_errors": {"image": int, "label": int, "predicted": int, "probability": float},
    "robustness": {
        "corruption": str,
        "model": str,
        "level": int,
        "strength": Number,
        "accuracy": float,
        "images": int,
    },
}
PARTS = ("train", "validation", "test")
CALIBRATION = ("loss", "brier", "calibration_error", "temperature")
SCORES = ("precision", "recall", "f1", "auc", "support")


@dataclass(frozen=True)
class Results:
    """Facts, tables and decision.

    `models` are those that have scores. `table` has a row for each variant (see `summarize`), `settings`
    its parameters; `histories` and `per_class` a table for each VARIANT-SEED; `validation` and `test` say
    which images each model gets right. `selection` is the chosen model, `confused` its pairs of classes,
    `calibration` its scores without and with temperature scaling, and `diagnosis` holds the tables of
    `diagnose`. `diverged` holds the reason for each VARIANT-SEED that diverged, which no table has.
    """

    facts: dict[str, Any]
    models: list[ModelFiles]
    balance: pd.DataFrame
    table: pd.DataFrame
    settings: dict[str, dict[str, Any]]
    histories: dict[str, pd.DataFrame]
    per_class: dict[str, pd.DataFrame]
    confused: pd.DataFrame
    calibration: pd.DataFrame
    selection: Selection
    diverged: dict[str, str]
    diagnosis: dict[str, pd.DataFrame]
    validation: Resampled
    test: Resampled

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
    if (chosen := selection.files) not in models:
        raise PipelineError(f"{SELECTION}: {chosen.name}: has no scores; run `dvc repro select`")
    histories = {one.name: one.epochs() for one in models}
    scores["parameters"] = [one.record().metrics["parameters"] for one in models]
    scores["epochs"] = [len(table) for table in histories.values()]
    scores["training_accuracy"] = [table["accuracy"].iloc[-1] for table in histories.values()]
    scores["views_accuracy"] = [accuracy_with_views(one.metrics()) for one in models]
    pairs = {"one": str, "other": str, "images": int, "one_as_other": int, "other_as_one": int}
    return Results(
        facts=facts,
        models=models,
        balance=read_table(PREPARED / "class_balance.csv", {"class": str} | dict.fromkeys(PARTS, int)),
        table=summarize(scores, published if facts["source"] == "cifar10" else {}),
        settings={one.variant: one.record().params for one in models},
        histories=histories,
        per_class={one.name: read_per_class(one, facts["classes"]) for one in models},
        confused=read_table(chosen.evaluation / "most_confused.csv", pairs),
        calibration=read_table(chosen.evaluation / "temperature.csv", dict.fromkeys(CALIBRATION, float)),
        selection=selection,
        diverged=diverged,
        diagnosis=read_diagnosis(chosen),
        validation=Resampled(right_of(models, "validation")),
        test=Resampled(right_of(models, "test")),
    )


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
        raise PipelineError(f"{DIAGNOSIS}: is not of {chosen.name}; run `dvc repro diagnose`")
    return tables


def accuracy_with_views(scores: dict[str, Any]) -> float:
    """The test accuracy with test-time views, of a model's scores; NaN if it has no views."""
    return next((of["accuracy"] for part, of in scores.items() if part.startswith("test_")), float("nan"))


def read_per_class(files: ModelFiles, classes: list[str]) -> pd.DataFrame:
    """A model's scores by class. Raises PipelineError if it has others than these classes."""
    path = files.evaluation / "per_class.csv"
    table = read_table(path, {"class": str, **dict.fromkeys(SCORES, float)})
    if table["class"].tolist() != classes:
        raise PipelineError(f"{path}: its classes are not those of {PREPARED / 'split'}; run `dvc repro`")
    return table.set_index("class")[list(SCORES)]


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
