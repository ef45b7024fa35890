"""The tables of the report and the model card, as they are printed, in Markdown."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from pipeline.shared.selection import in_words
from pipeline.stages.report.controlled import BASE
from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import wilson

COLUMNS, ROWS = 12, 20  # of a table; of more classes, only the hardest are shown
FEWER = 10
UNEVEN = 1.5  # times as many test images as the smallest class has
SETTINGS = ("network", "optimizer", "optimizer.learning_rate", "batch_size", "precision")
# What Markdown or GitHub's mathematics would not show as it is written. Harmless are `_` within a word, `<`
# and `&` before a space, a `]` that ends no text of a link, and `>` within a line.
MARKUP = re.compile(r"[\\`*|~$]|\](?=[(\[:])|<(?=[\w!?/])|&(?=[#\w])|^>|(?<![^\W_])_|_(?![^\W_])")
SPACE = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")


def variants(results: Results) -> pd.DataFrame:
    """Parameters, epochs and accuracies of each variant, with views and as published where there are any."""
    table, counts = results.table, results.facts["counts"]
    shown = pd.DataFrame(
        {
            "parameters": table["parameters"].map("{:,.0f}".format),
            "epochs": table["epochs"].map("{:.3g}".format),
            "validation": list(_with_spread(table, "validation", counts["validation"])),
            "test": list(_with_spread(table, "test", counts["test"])),
        }
    )
    if (metric := results.selection.metric) != "accuracy":
        shown[f"{in_words(metric)} (validation)"] = results.scores[f"validation_{metric}"].map(
            "{:.4f}".format
        )
    if (images := results.balance["test"]).max() > UNEVEN * images.min():
        means = class_means(results)
        shown["balanced (test)"] = means["recall"].map("{:.4f}".format)
        shown["macro F1 (test)"] = means["f1"].map("{:.4f}".format)
    if table["views"].notna().any():
        shown["with views"] = table["views"].map(in_digits(".4f"))
    if table["published"].notna().any():
        shown["published (test)"] = table["published"].map(in_digits(".4f"))
        shown["difference"] = (100 * (table["test"] - table["published"])).map(in_digits("+.1f"))
    return shown


def scores(results: Results) -> pd.DataFrame:
    """Every score of each variant on test images but accuracy, which `variants` has."""
    named = results.scores.filter(like="test_").rename(columns=lambda name: name.removeprefix("test_"))
    return named.drop(columns="accuracy").map("{:.3f}".format).rename(columns=in_words)


def class_means(results: Results) -> pd.DataFrame:
    """Recall and F1 on test images in the mean over classes, which are balanced accuracy and macro F1.

    A row for each variant, their means over seeds.
    """
    return pd.DataFrame({"recall": results.recall.mean(axis=1), "f1": results.f1.mean(axis=1)})


def _with_spread(table: pd.DataFrame, part: str, images: int) -> Iterator[str]:
    for mean, sd in zip(table[part], table[f"{part}_sd"], strict=True):
        low, high = wilson(mean, images)
        yield f"{mean:.4f} " + (f"({low:.3f} to {high:.3f})" if pd.isna(sd) else f"± {sd:.4f}")


def settings(results: Results) -> pd.DataFrame:
    """The main settings in which variants differ; "" of those that one does not have."""
    rows = [results.settings[variant] for variant in results.table.index]
    shown = {
        key.rpartition(".")[2].replace("_", " "): [str(row.get(key, "")) for row in rows] for key in SETTINGS
    }
    if any(starts := [start_of(row) for row in rows]):
        shown["starts from"] = starts
    table = pd.DataFrame(shown, index=results.table.index)
    same = [key for key, column in table.items() if len(table) > 1 and column.nunique() == 1]
    named_so = [key for key, column in table.items() if (column == table.index).all()]
    return table.drop(columns={*same, *named_so})


def start_of(row: dict[str, Any]) -> str:
    """The variant, or the beginning of the SHA-256 of the weights, that a training starts from."""
    weights = row.get("start.sha256", "")
    return str(row.get(BASE) or (weights and f"weights {weights[:8]}"))


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """The result of `Correctness.compare` as it is printed, in percentage points."""
    points = 100 * table[["difference", "low", "high"]]
    return pd.DataFrame(
        {
            "difference": points["difference"].map("{:+.1f}".format),
            "95 % interval": [f"{row.low:+.1f} to {row.high:+.1f}" for row in points.itertuples()],
            "p": ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in table["p"]],
            "real": table["real"].map({True: "yes", False: "no"}),
        }
    )


def f1_by_class(f1: pd.DataFrame) -> pd.DataFrame:
    """F1 of each variant (rows) and class (columns); of many classes, of the hardest."""
    shown = f1 if len(f1.columns) <= COLUMNS else f1[f1.mean().nsmallest(FEWER).index]
    return shown.map("{:.3f}".format).rename_axis("variant")


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of each class."""
    images = table["support"].map("{:.0f}".format)
    shown = table.drop(columns="support").map("{:.3f}".format).assign(images=images)
    return shown.rename(columns={"f1": "F1", "auc": "AUC"})


def balance(table: pd.DataFrame) -> pd.DataFrame:
    """The images of each class and part; of many classes, the smallest, median and largest number."""
    if len(table) <= ROWS:
        return table
    spread = table.drop(columns="class").agg(["min", "median", "max"])
    return spread.map("{:g}".format).rename_axis("images")


def literal(value: object) -> str:
    """Markdown that shows `value` as it is written."""
    return SPACE.sub(lambda match: f"&#{ord(match[0])};", MARKUP.sub(r"\\\g<0>", str(value)))


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown, its cells as they are written; its index is the first column if it has a name."""
    cells = table.reset_index() if table.index.name is not None else table
    shown = cells.astype(str).map(literal).rename(columns=literal)
    return shown.to_markdown(index=False, tablefmt="github", disable_numparse=True)


def in_digits(form: str) -> Callable[[float], str]:
    """A formatter of a table's numbers; "" of a missing one."""
    return lambda value: "" if pd.isna(value) else format(value, form)
