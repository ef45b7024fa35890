"""The report's words and tables, from results to Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting.markdown import literal, markdown_table

NOISE = 0.015  # one run against one published run: differences within this much are noise
CIFAR10 = "The images are 32 x 32 pixels from the web of the 2000s"
OTHERS = "The images are 32 x 32 pixels of one dataset"
LIMITS = """\
- Someone once chose the classes: an image of anything else still gets one of these names, often
  with high confidence.
- {source}; results on other pictures will be worse, and
  worse for some kinds of pictures than for others.
- Accuracy is an average. The tables by class show who bears the errors: look at them before relying on
  one label, and do not use this model where a wrong label harms a person.
- Image classifiers serve surveillance as readily as search. Who is shown, who agreed to it, and who can
  object are questions that no metric here answers.
"""


@dataclass(frozen=True)
class Results:
    """What the report shows.

    `table` has a row for each variant (see `pipeline.report.summarize`), `histories` and `per_class` a table
    for each VARIANT-SEED. `champion` is the decision of `pipeline.promote`. `diverged` holds the reason for
    each VARIANT-SEED that diverged, which is in no table.
    """

    facts: dict[str, Any]
    balance: pd.DataFrame
    table: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    per_class: dict[str, pd.DataFrame]
    confused: pd.DataFrame
    champion: dict[str, Any]
    diverged: dict[str, str]

    @property
    def champion_name(self) -> str:
        """The champion as VARIANT-SEED."""
        return f"{self.champion['variant']}-{self.champion['seed']}"


def write(results: Results) -> str:
    """The whole report in Markdown, with figures beside it."""
    sections = {
        f"Results on {results.facts['name']}": _champion(results),
        "All variants": _variants(results),
        "What the comparison shows": "\n".join(f"- {line}" for line in _comparison(results)),
        "Results by class": _by_class(results),
        "The champion's test images": _confusions(results),
        "Data": _data(results),
        "Limits": LIMITS.format(source=CIFAR10 if results.facts["source"] == "cifar10" else OTHERS),
    }
    return (
        "\n\n".join(
            f"{'#' if number == 0 else '##'} {title}\n\n{text.strip()}"
            for number, (title, text) in enumerate(sections.items())
        )
        + "\n"
    )


def _champion(results: Results) -> str:
    champion, second = results.champion, results.champion["runner_up"]
    lines = [
        f"The champion is **{champion['variant']}** (seed {champion['seed']}): validation accuracy "
        f"{champion['validation_accuracy']:.4f}, test accuracy {champion['test_accuracy']:.4f}.",
        f"It was chosen on validation images alone, for the highest mean validation accuracy, "
        f"{champion['mean_validation_accuracy']:.4f} over {_count(champion['seeds'], 'seed')}"
        + (
            f"; {second['variant']} comes next with {second['mean_validation_accuracy']:.4f}."
            if second
            else "."
        ),
        "The test images were read once for each model, after its training, to score it.",
    ]
    return "\n".join(lines)


def _variants(results: Results) -> str:
    table = results.table
    rows = pd.DataFrame(
        {
            "variant": table.index,
            "parameters": [f"{value:,.0f}" for value in table["parameters"]],
            "epochs": [f"{value:.3g}" for value in table["epochs"]],
            "validation": list(_with_sd(table, "validation")),
            "test": list(_with_sd(table, "test")),
        }
    )
    seeds = int(table["seeds"].iloc[0])
    text = "One training each. " if seeds == 1 else f"Mean and standard deviation of {seeds} seeds. "
    if table["published"].notna().any():
        rows["published (test)"] = [_or_none(value, ".4f") for value in table["published"]]
        differences = 100 * (table["test"] - table["published"])
        rows["difference"] = [_or_none(value, "+.1f") for value in differences]
        text += (
            "The difference to the published figure is in percentage points; one run against one published "
            f"run, up to {100 * NOISE:.1f} points are noise. The documents trained on up to 50,000 images."
        )
    diverged = [f"- `{name}` diverged, and is in no table: {r}." for name, r in results.diverged.items()]
    pictures = [
        "![Accuracy by variant](accuracies.png)",
        "![Validation accuracy and loss by epoch](curves.png)",
    ]
    return "\n\n".join([text.strip(), markdown_table(rows), *diverged, *pictures])


def _comparison(results: Results) -> Iterator[str]:
    table = results.table
    gap = (table["training_accuracy"] - table["validation"]).sort_values(ascending=False)
    widest, narrowest = gap.index[0], gap.index[-1]
    yield (
        f"**Over-fitting**: `{widest}` ends with training accuracy {table['training_accuracy'][widest]:.3f} "
        f"and validation accuracy {table['validation'][widest]:.3f}, the widest gap; `{narrowest}` has the "
        f"narrowest ({table['training_accuracy'][narrowest]:.3f} and {table['validation'][narrowest]:.3f})."
    )
    pairs = {
        "Early stopping": ("vgg3_early_stop", "vgg3"),
        "Adam against SGD on the same network": ("augmented", "augmented_sgd"),
        "Flips in place of dropout": ("deep_flips", "deep_dropout"),
        "Augmentation, L2 and Adam": ("model_s_plus", "model_s"),
        "More training on a subset": ("batchnorm_subset", "batchnorm"),
        "Twice the convolutions in each block": ("vgg3", "batchnorm"),
    }
    for title, (one, other) in pairs.items():
        if one in table.index and other in table.index:
            accuracy, compared = table["validation"][one], table["validation"][other]
            change = round(accuracy - compared, 3)  # as it is printed
            verdict = "no more than noise" if abs(change) <= NOISE else "better" if change > 0 else "worse"
            yield (
                f"**{title}**: `{one}` {accuracy:.4f}, `{other}` {compared:.4f} on validation images: "
                f"{100 * change:+.1f} points, {verdict}."
            )
    if len(table) > 2 and table["parameters"].nunique() > 1 and table["validation"].nunique() > 1:
        size = float(table["parameters"].corr(table["validation"], method="spearman"))
        yield f"**Size**: the rank correlation of parameters and validation accuracy is {size:+.2f}."


def _by_class(results: Results) -> str:
    classes = list(results.per_class[results.champion_name].index)
    f1 = pd.DataFrame({name: table["f1"] for name, table in results.per_class.items()}).mean(axis=1)
    hardest = ", ".join(literal(name) for name in f1.nsmallest(3).index)
    rows = [
        [name, *(f"{table['f1'][label]:.3f}" for label in classes)]
        for name, table in results.per_class.items()
    ]
    scores = pd.DataFrame(rows, columns=["variant", *classes])
    return (
        f"F1 on test images. Hardest over all models: {hardest}.\n\n{markdown_table(scores)}\n\n"
        f"Precision, recall and AUC by class are in `evaluation/VARIANT-SEED/per_class.csv`; the champion's:"
        f"\n\n{markdown_table(_rounded(results.per_class[results.champion_name]))}"
    )


def _confusions(results: Results) -> str:
    first = results.confused.iloc[0]
    return (
        f"It mixes up {literal(first['one'])} and {literal(first['other'])} most: "
        f"{first['images']} images.\n\n"
        f"{markdown_table(results.confused)}\n\n![Confusion matrix](champion_confusion.png)\n\n"
        "![ROC curves](champion_roc.png)\n\n![Right and wrong examples](champion_examples.png)"
    )


def _data(results: Results) -> str:
    return (
        f"One split for all variants, digest `{results.facts['split_digest'][:12]}`; no image is in two of "
        "its parts.\n\n"
        f"{markdown_table(results.balance)}\n\n![Sample images](samples.png)"
    )


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.reset_index()
    for name in ("precision", "recall", "f1", "auc"):
        shown[name] = [f"{value:.3f}" for value in shown[name]]
    return shown


def _with_sd(table: pd.DataFrame, part: str) -> Iterator[str]:
    for mean, sd in zip(table[part], table[f"{part}_sd"], strict=True):
        yield f"{mean:.4f}" if pd.isna(sd) else f"{mean:.4f} ± {sd:.4f}"


def _or_none(value: float, form: str) -> str:
    return "none" if pd.isna(value) else format(value, form)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
