"""What `diagnose` found, in words: near duplicates, suspicious labels, corrupted images."""

from pipeline.stages.report.results import Results

COMMON = 0.1  # of the test images; if more resemble others, they may be alike without being copies


def near_duplicates(results: Results) -> str:
    """How many images are in two parts, and the accuracy without them."""
    table = results.diagnosis["near_duplicates"]
    counts, chosen = results.facts["counts"], results.candidate
    found = {part: table.loc[table["part"] == part, "image"] for part in ("test", "validation")}
    parts = (f"{len(images):,} of {counts[part]:,} {part} images" for part, images in found.items())
    text = (
        f"**Near duplicates**: {' and '.join(parts)} closely resemble an image of another part: their "
        "details correlate, whatever their light and colours. Shifted and mirrored copies are not found."
    )
    if len(found["test"]) > COMMON * counts["test"]:
        text += (
            " That is many: either the parts share pictures, or images with few details look alike. The "
            "pairs show which."
        )
    right = results.test.right[chosen.variant, chosen.seed]
    if 0 < len(found["test"]) < len(right):
        text += (
            f" Without these test images `{chosen.name}` has an accuracy of "
            f"{right.drop(found['test'], errors='ignore').mean():.4f} instead of {right.mean():.4f}."
        )
    picture = "![Pairs, from the most to the least similar](near_duplicates.png)"
    return text if table.empty else f"{text}\n\n{picture}"


def label_errors(results: Results) -> str:
    """Which test labels the chosen model contradicts."""
    found = len(results.diagnosis["label_errors"])
    text = (
        f"**Suspicious labels**: {found:,} of {results.facts['counts']['test']:,}, for which "
        f"`{results.candidate.name}` confidently predicts another class (confident learning: Northcutt, "
        "Jiang and Chuang, 2021)."
    )
    if not found:
        return text
    picture = "![The most suspicious labels](label_errors.png)"
    return f"{text} Many of these are the model's mistakes: look at them.\n\n{picture}"


def robustness(results: Results) -> str:
    """Which corruption costs the chosen model most, and which least."""
    table = results.diagnosis["robustness"]
    own = table[table["model"] == results.candidate.name]
    last = own[own["level"] == own["level"].max()].set_index("corruption")["accuracy"].sort_values()
    return (
        f"The accuracy of `{results.candidate.name}` is {own['accuracy'].iloc[0]:.3f} on the first "
        f"{own['images'].iloc[0]:,} test images. With the strongest corruption it is lowest with "
        f"{last.index[0]}, {last.iloc[0]:.3f}, and highest with {last.index[-1]}, {last.iloc[-1]:.3f}.\n\n"
        "![Accuracy on corrupted images](robustness.png)"
    )
