"""Write the report on all variants and the card of the chosen model.

    python -m pipeline report

Reads params.yaml (published, card), recipes, data/prepared, models, predictions, metrics, evaluation,
selection.json and diagnosis. Writes reports/: report.md, its figures and lists of images, report.html, which
has the figures in it, and model-card.md, of the chosen model. Logs them to the run `report`, with a figure of
accuracy against training time; the card also describes the registered version.
"""

import shutil

import click
import pandas as pd
from matplotlib.figure import Figure

from pipeline.params import Params
from pipeline.stages.report import comparison_figures, documents
from pipeline.stages.report.results import Results, read_results
from pipeline.support import mlflow_store
from pipeline.support.digests import file_digest
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.mlflow_outputs import cpu_minutes, describe_versions, log_report
from pipeline.support.new_files import replacing, write_figure, write_text
from pipeline.support.paths import (
    DIAGNOSIS,
    EVALUATION,
    METRICS,
    MODELS,
    PREDICTIONS,
    PREPARED,
    RECIPES,
    REPORTS,
    SELECTION,
)

FIGURES = ("confusion", "roc", "reliability", "coverage", "examples")  # of the chosen model, as it is served
LISTS = ("near_duplicates", "label_errors")  # of images
SHOWN = ("split", "validation", "test", "class_balance.csv", "samples.png")  # of the prepared data


@click.command(cls=SingleInstance)
def main() -> None:
    """Read, write and log."""
    params = Params.read()
    check_inputs(
        *(RECIPES, SELECTION, DIAGNOSIS, EVALUATION, METRICS, MODELS, PREDICTIONS),
        *(PREPARED / name for name in SHOWN),
    )
    mlflow_store.check()
    results = read_results(params.published)
    name, evaluation = results.facts["name"], results.chosen.evaluation
    for title, score in (("curves", "accuracy"), ("losses", "loss")):
        write_figure(REPORTS / f"{title}.png", comparison_figures.all_curves(results.histories, score))
    accuracies = comparison_figures.accuracies(results.table, results.facts["counts"])
    write_figure(REPORTS / "accuracies.png", accuracies)
    figures = (evaluation / f"{figure}.png" for figure in FIGURES)
    lists = (evaluation / "misclassified.csv", *(DIAGNOSIS / f"{name}.csv" for name in LISTS))
    for path in (*figures, *lists, *DIAGNOSIS.glob("*.png"), PREPARED / "samples.png"):
        with replacing(REPORTS / path.name) as new:
            shutil.copyfile(path, new)

    text = documents.report(results)
    write_text(REPORTS / "report.md", text)
    write_text(REPORTS / "model-card.md", documents.model_card(results, params.card))
    write_text(REPORTS / "report.html", documents.html_page(text, REPORTS, f"Results on {name}"))
    log_report(name, accuracy_by_minutes(results))
    describe_versions(name)
    print(f"report: {(REPORTS / 'report.html').resolve().as_uri()}")  # which a click opens


def accuracy_by_minutes(results: Results) -> Figure | None:
    """The figure of accuracy against training time, of the variants whose time MLflow knows."""
    minutes = {
        (one.variant, one.seed): cpu_minutes(results.facts["name"], file_digest(one.model))
        for one in results.models
    }
    means = pd.Series(minutes, dtype=float).groupby(level=0).mean()
    table = results.table.assign(minutes=means).dropna(subset="minutes")
    return comparison_figures.frontier(table) if len(table) else None
