"""The table of all variants: their accuracies with intervals, and their settings."""

from collections.abc import Iterator

import pandas as pd

from pipeline.stages.report.findings import NOISE
from pipeline.stages.report.markdown import in_digits, literal, markdown_table
from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import wilson

SETTINGS = {
    "network": "network",
    "optimizer": "optimizer",
    "optimizer.learning_rate": "learning rate",
    "batch_size": "batch size",
    "precision": "precision",
}


def all_variants(results: Results) -> str:
    """Accuracies, differences from the published figures, curves and settings."""
    table, counts = results.table, results.facts["counts"]
    rows = pd.DataFrame(
        {
            "parameters": table["parameters"].map("{:,.0f}".format),
            "epochs": table["epochs"].map("{:.3g}".format),
            "validation": list(_with_spread(table, "validation", counts["validation"])),
            "test": list(_with_spread(table, "test", counts["test"])),
        }
    )
    seeds, fewest = int(table["seeds"].max()), int(table["seeds"].min())
    single = "One training each, with the 95 % interval for so many images (Wilson)."
    text = f"Accuracy on {counts['validation']:,} validation and {counts['test']:,} test images. "
    text += single if seeds == 1 else f"Mean and standard deviation of {seeds} seeds."
    if fewest < seeds:
        text += " Some trainings diverged. A variant that has one seed left is shown with its 95 % interval."
    if table["views"].notna().any():
        rows["with views"] = table["views"].map(in_digits(".4f"))
        text += (
            " Views are shifted and mirrored copies of a test image, over which the served model averages; "
            "models are compared without them."
        )
    if table["published"].notna().any():
        rows["published (test)"] = table["published"].map(in_digits(".4f"))
        rows["difference"] = (100 * (table["test"] - table["published"])).map(in_digits("+.1f"))
        text += (
            " The difference from the published figure is in percentage points; between two single runs, up "
            f"to {100 * NOISE:.1f} points are noise. The documents trained on up to 50,000 images."
        )
    diverged = [
        f"- `{name}` diverged, and is in no table: {literal(reason)}."
        for name, reason in results.diverged.items()
    ]
    pictures = ("![Accuracy by variant](accuracies.png)", "![Accuracy by epoch](curves.png)")
    return "\n\n".join([text, markdown_table(rows), *diverged, *pictures, _settings(results)])


def _settings(results: Results) -> str:
    shown = {
        title: [str(results.settings[variant].get(key, "")) for variant in results.table.index]
        for key, title in SETTINGS.items()
    }
    table = pd.DataFrame(shown, index=results.table.index.rename("variant"))
    return f"Their main settings; `params.yaml` has all of them:\n\n{markdown_table(table)}"


def _with_spread(table: pd.DataFrame, part: str, images: int) -> Iterator[str]:
    for mean, sd in zip(table[part], table[f"{part}_sd"], strict=True):
        low, high = wilson(mean, images)
        yield f"{mean:.4f} " + (f"({low:.3f} to {high:.3f})" if pd.isna(sd) else f"± {sd:.4f}")
