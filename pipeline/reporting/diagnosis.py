"""What `pipeline.diagnose` found, in words: copies, wrong labels, and how far accuracy falls."""

from pipeline.reporting.results import Results

COMMON = 0.1  # of the test images; if more resemble others, likeness says nothing
FIGURES = ("near_duplicates", "label_errors", "robustness")


def near_duplicates(results: Results) -> str:
    """How many images are in two parts, and the accuracy without them."""
    table = results.diagnosis["near_duplicates"]
    counts, chosen = results.facts["counts"], results.candidate
    found = {part: table.loc[table["part"] == part, "image"] for part in ("test", "validation")}
    parts = (f"{len(images):,} of {counts[part]:,} {part} images" for part, images in found.items())
    text = (
        f"**Near duplicates**: {' and '.join(parts)} closely resemble an image of another part (a "
        "correlation of 0.9 of their details, without light and colours)."
    )
    if len(found["test"]) > COMMON * counts["test"]:
        text += " So many are not copies of one picture: where images have few details, they are alike."
    right = results.test.right[(chosen.variant, chosen.seed)]
    if 0 < len(found["test"]) < len(right):
        text += (
            f" Without these test images `{chosen.name}` has an accuracy of "
            f"{right.drop(found['test']).mean():.4f} instead of {right.mean():.4f}."
        )
    picture = "\n\n![Pairs, from the most to the least similar](near_duplicates.png)"
    return text + picture * bool(len(table))


def label_errors(results: Results) -> str:
    """How many test labels are likely wrong."""
    table = results.diagnosis["label_errors"]
    text = "**Labels**: by confident learning (Northcutt, Jiang and Chuang, 2021) from these predictions, "
    if table.empty:
        return f"{text}no test label is likely wrong."
    return (
        f"{text}{len(table):,} of {results.facts['counts']['test']:,} test labels are likely wrong. The most "
        "suspicious ones, by their numbers:\n\n![Labels that are likely wrong](label_errors.png)"
    )


def robustness(results: Results) -> str:
    """Which corruption costs the chosen model most, and which least."""
    table = results.diagnosis["robustness"]
    own = table[table["model"] == results.candidate.name]
    last = own[own["level"] == own["level"].max()].set_index("corruption")["accuracy"].sort_values()
    return (
        f"On the first {own['images'].iloc[0]:,} test images, the accuracy of "
        f"`{results.candidate.name}` falls most with {last.index[0]}, from {own['accuracy'].iloc[0]:.3f} to "
        f"{last.iloc[0]:.3f} at the strongest of five levels, and least with {last.index[-1]}, to "
        f"{last.iloc[-1]:.3f}.\n\n![Accuracy as images get worse](robustness.png)"
    )
