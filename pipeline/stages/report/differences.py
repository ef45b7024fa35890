"""Which differences between the chosen model and the others are real, in a sentence and a table."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.stages.report.markdown import markdown_table
from pipeline.stages.report.results import Results


def differences(results: Results) -> str:
    """The chosen model against each other variant, on test images."""
    chosen = results.candidate
    best = results.validation.right.mean().groupby("variant", sort=False).idxmax()
    others = {name: best[name][1] for name in results.table.index if name != chosen.variant}
    if not others:
        return "There is one variant, and nothing to compare it with."
    table = results.test.compare((chosen.variant, chosen.seed), others)
    seeds = int(results.table["seeds"].min())
    verdict = sentences(table, chosen.variant, results.facts["counts"]["test"], seeds)
    return "\n\n".join([" ".join(verdict), method(seeds), markdown_table(shown(table))])


def sentences(table: pd.DataFrame, champion: str, images: int, seeds: int) -> Iterator[str]:
    """Which variants differ from the champion by more than chance, and what more it would take for the next.

    `images` and `seeds` are how many there are.
    """
    real, unclear = table[table["real"]], table[~table["real"]]
    better, worse = real.index[real["difference"] > 0], real.index[real["difference"] < 0]
    if len(better):
        named = "all other variants" if len(better) == len(table) else listed(better)
        yield f"On test images `{champion}` is better than {named}."
    if len(worse):
        yield f"On test images `{champion}` is worse than {listed(worse)}."
    if len(unclear):
        yield f"Between `{champion}` and {listed(unclear.index)} the difference may be chance."
    closest = unclear[np.isfinite(unclear["images"])].nsmallest(1, "images")
    for name, needed in closest.to_dict("index").items():
        if needed["images"] > images:
            about = float(f"{needed['images']:.2g}")
            yield f"It would take about {about:,.0f} test images to show a difference from `{name}`."
        if needed["seeds"] > seeds:
            about = np.ceil(needed["seeds"])
            yield f"For the variants, not only these models, it would take about {about:,.0f} seeds of each."


def method(seeds: int) -> str:
    """What the columns are, and what one seed leaves open."""
    drawn = "the images" if seeds == 1 else "the images and the seeds"
    text = (
        f"Intervals (95 %) are of a paired bootstrap over {drawn}; p is McNemar's exact test of the two "
        "models with Holm's correction for the number of comparisons. A difference is real if both agree."
    )
    if seeds == 1:
        text += " With one seed, this is about these models: other seeds may reverse a small difference."
    return text


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as the report prints it, in percentage points."""
    points = 100 * table[["difference", "low", "high"]]
    return pd.DataFrame(
        {
            "points": points["difference"].map("{:+.1f}".format),
            "interval": [f"{row.low:+.1f} to {row.high:+.1f}" for row in points.itertuples()],
            "p": ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in table["p"]],
            "real": ["yes" if real else "no" for real in table["real"]],
        },
        index=table.index.rename("against"),
    )


def listed(variants: pd.Index) -> str:
    """The names of variants as `a`, `b` and `c`."""
    *names, last = (f"`{name}`" for name in variants)
    return f"{', '.join(names)} and {last}" if names else last
