"""Which differences between the chosen model and the others are real, in a sentence and a table."""

import numpy as np
import pandas as pd

from pipeline.reporting.markdown import markdown_table
from pipeline.reporting.results import Results


def differences(results: Results) -> str:
    """The chosen model against each other variant, on test images."""
    chosen = results.candidate
    best = results.validation.right.mean().groupby("variant", sort=False).idxmax()
    others = {name: best[name][1] for name in results.table.index if name != chosen.variant}
    if not others:
        return "There is one variant, and nothing to compare it with."
    table = results.test.compare((chosen.variant, chosen.seed), others)
    seeds = int(results.table["seeds"].min())
    return "\n\n".join([verdict(table, chosen.variant), method(seeds), markdown_table(shown(table))])


def verdict(table: pd.DataFrame, champion: str) -> str:
    """Which variants differ from the champion by more than chance, and what it would take for the others."""
    real, unclear = table[table["real"]], table[~table["real"]]
    better, worse = real.index[real["difference"] > 0], real.index[real["difference"] < 0]
    sentences = []
    if len(better):
        named = "all other variants" if len(better) == len(table) else listed(better)
        sentences.append(f"On test images `{champion}` is better than {named}.")
    if len(worse):
        sentences.append(f"On test images `{champion}` is worse than {listed(worse)}.")
    if len(unclear):
        sentences.append(f"Between `{champion}` and {listed(unclear.index)} the difference may be chance.")
    if np.isfinite(unclear["images"]).any():
        closest = unclear.nsmallest(1, "images").to_dict("index")
        [(name, needed)] = closest.items()
        images = float(f"{needed['images']:.2g}")
        sentence = f"Some {images:,.0f} test images would show a difference from `{name}`"
        if np.isfinite(needed["seeds"]):
            sentence += f"; between the two variants, some {np.ceil(needed['seeds']):,.0f} seeds of each"
        sentences.append(f"{sentence}.")
    return " ".join(sentences)


def method(seeds: int) -> str:
    """What the columns are, and what one seed leaves open."""
    drawn = "the images" if seeds == 1 else "the images and the seeds"
    text = (
        f"Intervals (95 %) are of a paired bootstrap over {drawn}; p is McNemar's exact test of the two "
        "models with Holm's correction for the number of comparisons. A difference is real if both agree."
    )
    if seeds == 1:
        text += (
            " With one training each, this is about these models: another seed may turn a small difference."
        )
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
