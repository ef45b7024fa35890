"""Write the report: every variant beside its published figure, the champion and why.

    python -m pipeline.report

Reads params.yaml (variants, seeds, published), data/prepared, models, metrics, evaluation and
champion.json. Writes reports/: report.md, its figures, and report.html, which opens by itself. Logs them
to a run named `report`.
"""

import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd

from pipeline.champion.selection import divergence, read_scores
from pipeline.data.arrays import digest_of, read_facts
from pipeline.errors import one_line_errors
from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.paths import CHAMPION, EVALUATION, METRICS, MODELS, PREPARED, REPORTS
from pipeline.records import store, tracking
from pipeline.running.lock import alone
from pipeline.scoring import figures, report_text
from pipeline.scoring.markdown import to_html
from pipeline.scoring.report_text import Results
from pipeline.settings.reading import read_params

SHOWN = ("split", "class_balance.csv", "samples.png")  # of the prepared data


@one_line_errors
@alone
def main() -> None:
    """Read, write and log."""
    params = read_params(Params)
    check_inputs(CHAMPION, EVALUATION, METRICS, MODELS, *(PREPARED / name for name in SHOWN))
    store.check()
    results = read_results(params)
    REPORTS.mkdir(exist_ok=True)
    champion = results.champion_name
    figures.all_curves(results.histories).savefig(REPORTS / "curves.png", dpi=100)
    figures.accuracies(results.table).savefig(REPORTS / "accuracies.png", dpi=100)
    for figure in ("confusion", "roc", "examples"):
        shutil.copyfile(EVALUATION / champion / f"{figure}.png", REPORTS / f"champion_{figure}.png")
    shutil.copyfile(PREPARED / "samples.png", REPORTS / "samples.png")

    text = report_text.write(results)
    (REPORTS / "report.md").write_text(text)
    (REPORTS / "report.html").write_text(to_html(text, REPORTS))
    log_report(results.facts["name"], text)
    print(f"report: {REPORTS / 'report.md'} and {REPORTS / 'report.html'}")


def read_results(params: Params) -> Results:
    """Everything that the report tells, of the variants and seeds that params.yaml names now."""
    scores = read_scores(params.trained_models)
    trained = [f"{variant}-{seed}" for variant, seed in params.trained_models]
    diverged = {name: reason for name in trained if (reason := divergence(name)) is not None}
    names = [name for name in trained if name not in diverged]
    records = {name: tracking.read_training(MODELS / name) for name in names}
    scores["parameters"] = [records[name]["metrics"]["parameters"] for name in names]
    scores["epochs"] = [records[name]["metrics"]["stopped_epoch"] for name in names]
    histories = {name: pd.read_csv(MODELS / name / "history.csv") for name in names}
    scores["training_accuracy"] = [table["accuracy"].iloc[-1] for table in histories.values()]
    champion = json.loads(CHAMPION.read_text())
    champion_name = f"{champion['variant']}-{champion['seed']}"
    return Results(
        facts=read_facts(PREPARED / "split"),
        balance=_read_csv(PREPARED / "class_balance.csv", {"class": str}),
        table=summarize(scores, params.published),
        histories=histories,
        per_class={name: _read_per_class(name) for name in names},
        confused=_read_csv(EVALUATION / champion_name / "most_confused.csv", {"one": str, "other": str}),
        champion=champion,
        diverged=diverged,
    )


def summarize(scores: pd.DataFrame, published: dict[str, float]) -> pd.DataFrame:
    """A row a variant, best validation accuracy first: means over its seeds, their sd, and n."""
    groups = scores.groupby("variant", sort=False)
    table = groups[["parameters", "epochs", "training_accuracy"]].mean()
    for part in ("validation", "test"):
        table[part] = groups[f"{part}_accuracy"].mean()
        table[f"{part}_sd"] = groups[f"{part}_accuracy"].std()
    table["seeds"] = groups.size()
    table["published"] = pd.Series(published).reindex(table.index)
    return table.sort_values("validation", ascending=False, kind="stable")


def log_report(experiment: str, text: str) -> None:
    """Log the report's files to the run `report`; the same report again logs nothing."""
    tags = {"stage": "report", "report_digest": digest_of(text)}
    if tracking.find_run(experiment, tags) is None:
        with tracking.training_run(experiment, "report", tags):
            mlflow.log_artifacts(str(REPORTS), "report")


def _read_per_class(name: str) -> pd.DataFrame:
    return _read_csv(EVALUATION / name / "per_class.csv", {"class": str}).set_index("class")


def _read_csv(path: Path, names: dict[str, type[str]]) -> pd.DataFrame:
    """A table in which a class may be called NA or null."""
    return pd.read_csv(path, dtype=names, keep_default_na=False)


if __name__ == "__main__":
    main()
