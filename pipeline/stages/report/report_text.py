"""The report's words and tables, from results to Markdown."""

from typing import Any

import pandas as pd

from pipeline.stages.report import diagnosis
from pipeline.stages.report.differences import differences
from pipeline.stages.report.findings import confusions, findings, hardest
from pipeline.stages.report.markdown import literal, markdown_table
from pipeline.stages.report.results import Results
from pipeline.stages.report.variants import all_variants

COLUMNS, ROWS = 12, 20  # of a table; of more classes, only the hardest are shown
FEWER = 10
LIMITS = """\
- Someone once chose the classes: an image of anything else still gets one of these names, often
  with high confidence.
- The images are {size} x {size} pixels {source}; results on other pictures will be worse, and
  worse for some kinds of pictures than for others.
- Accuracy is an average. The tables by class show who bears the errors: look at them before relying on
  one label, and do not use this model where a wrong label harms a person.
- Image classifiers serve surveillance as readily as search. Who is shown, who agreed to it, and who can
  object are questions that no metric here answers."""


def write(results: Results) -> str:
    """The whole report in Markdown, with figures beside it."""
    facts = results.facts
    sections = {
        f"# Results on {literal(facts['name'])}": _chosen(results),
        "## All variants": all_variants(results),
        "## Which differences are real": differences(results),
        "## What the comparison shows": "\n".join(f"- {line}" for line in findings(results)),
        "## Results by class": _by_class(results),
        f"## Test images of {literal(results.candidate.name)}": _confused(results.confused),
        "## Robustness": diagnosis.robustness(results),
        "## Data": _data(results),
        "## Limits": f"{limits(facts)}\n",
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())


def limits(facts: dict[str, Any]) -> str:
    """What a model that was trained on these data cannot know, as a list."""
    source = "from the web of the 2000s" if facts["source"] == "cifar10" else "of one dataset"
    return LIMITS.format(size=facts["image_shape"][0], source=source)


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of each class as they are printed."""
    images = table["support"].map("{:.0f}".format)
    shown = table.drop(columns="support").map("{:.3f}".format).assign(images=images)
    return shown.rename(columns={"f1": "F1", "auc": "AUC"})


def _chosen(results: Results) -> str:
    """The chosen model, and why it was chosen."""
    chosen, second = results.selection, results.selection.runner_up
    mean = chosen.mean_validation_accuracy
    why = f"for the highest mean validation accuracy, {mean:.4f} over {_count(chosen.seeds, 'seed')}"
    if second and second.mean_validation_accuracy == mean:
        why += f"; {literal(second.variant)} has the same, and comes later in params.yaml"
    elif second:
        why += f"; {literal(second.variant)} comes next with {second.mean_validation_accuracy:.4f}"
    text = [
        f"The chosen model is **{literal(chosen.variant)}** (seed {chosen.seed}): validation accuracy "
        f"{chosen.validation_accuracy:.4f}, test accuracy {chosen.test_accuracy:.4f}.",
        f"It was chosen on validation images alone, {why}.",
    ]
    models = len(results.validation.right.columns)
    if models > 1:
        points = 100 * results.validation.overstatement()
        some = f"some {points:.1f}" if points >= 0.05 else "less than 0.1"
        text.append(
            f"Choosing the best of {models} models overstates its validation accuracy by {some} points, "
            "by a bootstrap estimate."
        )
    text.append("Test images played no part in the choice.")
    return "\n".join(text)


def _by_class(results: Results) -> str:
    f1, table = results.f1, results.per_class[results.candidate.name]
    hard = f", the hardest {FEWER} of {len(table)} classes"
    few_columns, few_rows = len(table) <= COLUMNS, len(table) <= ROWS
    shown = f1 if few_columns else f1[f1.mean().nsmallest(FEWER).index]
    own = table if few_rows else table.nsmallest(FEWER, "f1")
    return "\n\n".join(
        [
            f"F1 on test images{'' if few_columns else hard}. {hardest(f1)}",
            markdown_table(shown.map("{:.3f}".format).rename_axis("variant")),
            f"{literal(results.candidate.name)}, each class against the rest{'' if few_rows else hard}; "
            "the other models' figures are in `evaluation/VARIANT-SEED/per_class.csv`:",
            markdown_table(by_class(own)),
        ]
    )


def _confused(pairs: pd.DataFrame) -> str:
    names = {"one": "A", "other": "B", "one_as_other": "A taken for B", "other_as_one": "B taken for A"}
    shown = pairs[pairs["images"] > 0].rename(columns=names)
    tables = [markdown_table(shown)] if len(shown) else []
    files = {
        "Confusion matrix": "confusion",
        "ROC curves": "roc",
        "Reliability": "reliability",
        "Right and wrong examples": "examples",
    }
    pictures = (f"![{title}]({file}.png)" for title, file in files.items())
    return "\n\n".join([confusions(pairs), *tables, *pictures])


def _data(results: Results) -> str:
    copies, balance = results.facts["duplicates"], results.balance
    text = (
        f"One split for all variants, digest `{results.facts['split_digest'][:12]}`. "
        "The pixels of all images were compared: "
        f"{_count(copies['training_and_validation'], 'validation image')} also in training, "
        f"{_count(copies['test'], 'test image')} also in training or validation."
    )
    if len(balance) > ROWS:
        text += f" Images in each of the {len(balance)} classes:"
        spread = balance.drop(columns="class").agg(["min", "median", "max"])
        balance = spread.map("{:g}".format).rename_axis("images")
    sections = [text, markdown_table(balance), "![Sample images](samples.png)"]
    return "\n\n".join([*sections, diagnosis.near_duplicates(results), diagnosis.label_errors(results)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
