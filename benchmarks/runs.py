"""The record of each full training, and what all records show.

    python -m benchmarks.runs [FOLDER]

Adds the trainings of the job in FOLDER to benchmarks/runs/, on the machine that trained them: a file each,
with settings, scores, curves, seconds and digests, but no model. Then writes the table of all records in
docs/results.md, and docs/images/frontier.png, test accuracy against CPU minutes. So a table may grow over
many days and machines: the minutes are those of one idle machine, on which `python -m benchmarks bfloat16`
has measured an epoch of each variant. Trainings of other data or another split are refused.
"""

import argparse
import json
import re
from contextlib import chdir
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import RESULTS, machine
from benchmarks.steps import forward_passes
from pipeline.core.arrays import read_facts, write_json
from pipeline.params import Params
from pipeline.stages.report.comparison_figures import frontier
from pipeline.stages.report.tables import in_digits, markdown_table
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError, one_line_errors
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import PREPARED

RECORDS, PAGE, FRONTIER = Path("benchmarks/runs"), Path("docs/results.md"), Path("docs/images/frontier.png")
BEGINS, ENDS = "<!-- Written by `python -m benchmarks.runs`. -->\n", "<!-- Written by hand. -->\n"
CURVES = ("accuracy", "loss", "val_accuracy", "val_loss")


@one_line_errors
def main() -> None:
    """Add the records of a job, then write the table and the figure."""
    parser = argparse.ArgumentParser(description="Collect the records of full trainings.")
    parser.add_argument(
        "folder", nargs="?", type=Path, help="a finished job; default: only the table and figure"
    )
    known = {path.stem: json.loads(path.read_text()) for path in RECORDS.glob("*.json")}
    new = records_in(folder) if (folder := parser.parse_args().folder) else {}
    records = [record for _, record in sorted((known | new).items())]
    if not records:
        raise PipelineError(f"{RECORDS}: no records yet: name the folder of a finished job")
    if len({record["digests"]["split_digest"] for record in records}) > 1:
        raise PipelineError(f"{RECORDS}: records of different splits cannot be compared")
    for name, record in new.items():
        write_json(RECORDS / f"{name}.json", record)
    epochs = json.loads(RESULTS.read_text())["bfloat16"]
    table = summarize(records, epochs)
    params = Params.read()
    table["published"] = pd.Series(params.published).reindex(table.index)
    for name in table.index.intersection(list(params.finetune.variants)):
        table.loc[name, "minutes"] += table["minutes"].get(params.finetune.init_from, float("nan"))
    written = f"{BEGINS}\n{text(records, table, epochs['machine'])}\n{ENDS}"
    page, found = re.subn(f"{BEGINS}.*{ENDS}", lambda _: written, PAGE.read_text(), flags=re.DOTALL)
    if not found:
        raise PipelineError(
            f"{PAGE}: lacks the lines {BEGINS.strip()} and {ENDS.strip()}, which enclose the table"
        )
    PAGE.write_text(page)
    frontier(table).savefig(FRONTIER, dpi=100)


def records_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a job's trainings that are scored, by their names."""
    with chdir(folder):
        return {one.name: record_of(one) for one in all_models() if one.scores.is_file()}


def record_of(files: ModelFiles) -> dict[str, Any]:
    """What is kept of a finished training of the job in this folder."""
    mlflow_store.check()
    facts, kept = read_facts(PREPARED / "split"), files.record()
    run = mlflow_runs.find_run(facts["name"], files.tags())
    if run is None or "cpu_seconds" not in run.data.metrics:
        raise PipelineError(f"{files.name}: MLflow has no run of it with its CPU seconds")
    history = files.epochs()
    return {
        "variant": files.variant,
        "seed": files.seed,
        "commit": run.data.tags["git_commit"],
        "code_digest": run.data.tags["code_digest"],
        "machine": machine(),
        "params": kept.params,
        "parameters": kept.metrics["parameters"],
        "scores": files.metrics(),
        "curves": {name: history[name].round(4).tolist() for name in CURVES},
        "seconds": {clock: round(run.data.metrics[f"{clock}_seconds"]) for clock in ("wall", "cpu")},
        "digests": files.tags() | {key: facts[key] for key in ("data_digest", "split_digest")},
    }


def minutes(record: dict[str, Any], epochs: dict[str, Any]) -> float:
    """CPU minutes of a training on an idle machine, by the seconds of an epoch there.

    Raises PipelineError if none is measured."""
    measured = {name: found for names, found in epochs["seconds"].items() for name in names.split(", ")}
    if (variant := record["variant"]) not in measured:
        raise PipelineError(f"{RESULTS}: no epoch of {variant}: run `python -m benchmarks bfloat16`")
    precision = record["params"]["precision"].removeprefix("mixed_")
    seconds = measured[variant][precision]["cpu"]["median"]
    train = record["params"].get("training_images", 45_000)
    work = forward_passes(train, 5_000) / forward_passes(0.9 * epochs["images"], 0.1 * epochs["images"])
    return float(len(record["curves"]["loss"]) * seconds * work / 60)


def summarize(records: list[dict[str, Any]], epochs: dict[str, Any]) -> pd.DataFrame:
    """A row for each variant, best first: means over its seeds, the sd of accuracies, and n."""
    rows = pd.DataFrame(
        [
            {
                "variant": record["variant"],
                "validation": record["scores"]["validation"]["accuracy"],
                "test": record["scores"]["test"]["accuracy"],
                "test with views": accuracy_with_views(record),
                "epochs": len(record["curves"]["loss"]),
                "minutes": minutes(record, epochs),
            }
            for record in records
        ]
    )
    groups = rows.groupby("variant")
    table = groups.mean()
    for part in ("validation", "test"):
        table[f"{part}_sd"] = groups[part].std()
    table["n"] = groups.size()
    return table.sort_values("validation", ascending=False)


def with_deviation(means: pd.Series, deviations: pd.Series) -> pd.Series:
    """Means as they are printed, with their standard deviations, if there are any."""
    known = " ± " + deviations.map(in_digits(".4f"))
    return means.map(in_digits(".4f")) + known.where(deviations.notna(), "")


def noise(table: pd.DataFrame) -> str:
    """What the standard deviations over seeds say about single trainings."""
    deviations = table[["test_sd", "n"]].dropna()
    most = deviations["test_sd"].idxmax()
    pooled = {
        name: 100 * float(np.average(of["test_sd"] ** 2, weights=of["n"] - 1)) ** 0.5
        for name, of in (("all", deviations), ("others", deviations.drop(most)))
    }
    return (
        f"The standard deviation of a test accuracy over seeds, pooled over variants, is {pooled['all']:.1f} "
        f"points, and {pooled['others']:.2f} without `{most}`, which varies most. So two single trainings of "
        f"one of the others differ by up to {2.77 * pooled['others']:.1f} points in 95 % of cases, and a "
        "smaller difference from a published figure, which is that of one training, may be chance."
    )


def accuracy_with_views(record: dict[str, Any]) -> float:
    """The test accuracy with test-time views; NaN of a variant without. Old records name the views."""
    scores, views = record["scores"], record["params"].get("views")
    if not views:
        return float("nan")
    return float((scores.get("test_served") or scores[f"test_{views}"])["accuracy"])


def text(records: list[dict[str, Any]], table: pd.DataFrame, idle: dict[str, Any]) -> str:
    """The table in Markdown, with what its figures depend on."""
    shown = pd.DataFrame(
        {
            "published": table["published"].map(in_digits(".4f")),
            **{part: with_deviation(table[part], table[f"{part}_sd"]) for part in ("validation", "test")},
            "n": table["n"],
            "difference": (100 * (table["test"] - table["published"])).map(in_digits("+.1f")),
            "with views": table["test with views"].map(in_digits(".4f")),
            "epochs": table["epochs"].map(in_digits(".3g")),
            "CPU minutes": table["minutes"].map(in_digits(".0f")),
        }
    )
    machines = dict.fromkeys(
        f"{record['machine']['cpu']}, {record['machine']['cores']} cores" for record in records
    )
    commits = dict.fromkeys(record["commit"][:7] + record["commit"][40:] for record in records)
    bfloat16 = sorted(
        {record["variant"] for record in records if "bfloat16" in record["params"]["precision"]}
    )
    introduction = (
        "Accuracies are means over n seeds and their standard deviations; the difference from the published "
        f"test accuracy is in percentage points. {noise(table)} One thread a training, "
        f"{'; '.join(machines)}; commit{'s' * (len(commits) > 1)} {', '.join(commits)} (`-dirty`: with "
        "changed files, at least the archive in params.yaml; new records have a digest of the code, too). "
        f"CPU minutes: the epochs, by the CPU seconds of an epoch on an idle {idle['cpu']} "
        f"([benchmarks](../benchmarks/results.md)), in bfloat16 for {' and '.join(bfloat16)}, in float32 for "
        "the others, and for a fine-tuned variant with those of its first training."
    )
    figure = f"![Accuracy against CPU minutes](images/{FRONTIER.name})"
    return f"{fill(introduction, 120)}\n\n{markdown_table(shown)}\n\n{figure}\n"


if __name__ == "__main__":
    main()
