"""Write the report: all variants, their published figures, the champion and the reason for its choice.

    python -m pipeline.report

Reads params.yaml (published), recipes/_index.json, data/prepared, models, metrics, evaluation and
champion.json. Writes reports/: report.md, its figures, and report.html, a single file. Logs them to a run
named `report`.
"""

import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd

from pipeline.champion.selection import read_scores
from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.reporting import figures, report_text
from pipeline.reporting.markdown import to_html
from pipeline.reporting.report_text import Results
from pipeline.shared.arrays import digest_of, read_facts
from pipeline.shared.errors import one_line_errors
from pipeline.shared.load_params import load_params
from pipeline.shared.lock import single_instance
from pipeline.shared.paths import CHAMPION, EVALUATION, METRICS, MODELS, PREPARED, RECIPES, REPORTS
from pipeline.shared.trained import Trained, all_trained

SHOWN = ("split", "class_balance.csv", "samples.png")  # of the prepared data


@one_line_errors
@single_instance
def main() -> None:
    """Read, write and log."""
    params = load_params(Params)
    check_inputs(RECIPES, CHAMPION, EVALUATION, METRICS, MODELS, *(PREPARED / name for name in SHOWN))
    store.check()
    results = read_results(params.published)
    REPORTS.mkdir(exist_ok=True)
    champion = Trained(results.champion["variant"], results.champion["seed"])
    figures.all_curves(results.histories).savefig(REPORTS / "curves.png", dpi=100)
    figures.accuracies(results.table).savefig(REPORTS / "accuracies.png", dpi=100)
    for figure in ("confusion", "roc", "examples"):
        shutil.copyfile(champion.evaluation / f"{figure}.png", REPORTS / f"champion_{figure}.png")
    shutil.copyfile(PREPARED / "samples.png", REPORTS / "samples.png")

    text = report_text.write(results)
    (REPORTS / "report.md").write_text(text)
    (REPORTS / "report.html").write_text(to_html(text, REPORTS))
    log_report(results.facts["name"], text)
    print(f"report: {REPORTS / 'report.md'} and {REPORTS / 'report.html'}")


def read_results(published: dict[str, float]) -> Results:
    """Everything that the report shows, of the models that params.yaml asks for."""
    scores = read_scores(all_trained())
    diverged = {one.name: reason for one in all_trained() if (reason := one.divergence()) is not None}
    models = [one for one in all_trained() if one.name not in diverged]
    records = [one.record()["metrics"] for one in models]
    scores["parameters"] = [record["parameters"] for record in records]
    scores["epochs"] = [record["stopped_epoch"] for record in records]
    histories = {one.name: pd.read_csv(one.history) for one in models}
    scores["training_accuracy"] = [table["accuracy"].iloc[-1] for table in histories.values()]
    champion, facts = json.loads(CHAMPION.read_text()), read_facts(PREPARED / "split")
    confused = Trained(champion["variant"], champion["seed"]).evaluation / "most_confused.csv"
    return Results(
        facts=facts,
        balance=_read_csv(PREPARED / "class_balance.csv", {"class": str}),
        table=summarize(scores, published if facts["source"] == "cifar10" else {}),
        histories=histories,
        per_class={
            one.name: _read_csv(one.evaluation / "per_class.csv", {"class": str}).set_index("class")
            for one in models
        },
        confused=_read_csv(confused, {"one": str, "other": str}),
        champion=champion,
        diverged=diverged,
    )


def summarize(scores: pd.DataFrame, published: dict[str, float]) -> pd.DataFrame:
    """A row for each variant, best validation accuracy first: means over its seeds, their sd, and n."""
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


def _read_csv(path: Path, names: dict[str, type[str]]) -> pd.DataFrame:
    """A table in which a class may be called NA or null."""
    return pd.read_csv(path, dtype=names, keep_default_na=False)


if __name__ == "__main__":
    main()
