"""Compare the results here with those of another commit, as Markdown for a pull request.

    python -m pipeline compare main

Prints which model would be chosen, the accuracies of the variants whose models differ, with intervals on the
same test images, and what DVC says of settings and metrics. Reads the results here and, from DVC's cache or
remote, those of the commit. Writes nothing.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import click
import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from pipeline.core.arrays import read_facts
from pipeline.shared.selection import Selection, in_words, read_scores, read_selection
from pipeline.shared.stored_probabilities import read_probabilities
from pipeline.stages.report.tables import in_digits, markdown_table
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.model_files import INDEX, all_models
from pipeline.support.paths import METRICS, PREDICTIONS, PREPARED, SELECTION

LABELS = PREPARED / "test/labels.npy"
READ = (SELECTION, METRICS, PREDICTIONS, PREPARED / "split", LABELS, INDEX)
DIFFS = {"Settings": "params", "Metrics": "metrics"}
NOTE = """\
Accuracies are means over seeds. The difference is that of test accuracies in points, with its 95 % interval
for other test images. A training with another seed differs, too."""


@dataclass(frozen=True)
class Results:
    """What the stages found: their choice, the scores, and which test images each model is right about."""

    selection: Selection
    scores: pd.DataFrame  # of `read_scores`
    digests: dict[str, set[str]]  # of each variant's models
    right: pd.DataFrame  # of test images (rows) and models (columns: variant, seed)
    data_digest: str

    @classmethod
    def read(cls) -> Self:
        """Those in this folder."""
        labels, right, digests = np.load(LABELS, allow_pickle=False), {}, dict[str, set[str]]()
        for files in all_models():
            if files.divergence() is None:
                digest = read_facts(files.predictions)["model_digest"]
                probabilities = read_probabilities(files, "test", model_digest=digest)
                right[files.variant, files.seed] = probabilities.argmax(axis=1) == labels
                digests.setdefault(files.variant, set()).add(digest)
        columns = pd.DataFrame(right).rename_axis(columns=["variant", "seed"])
        facts = read_facts(PREPARED / "split")
        return cls(read_selection(), read_scores(all_models()), digests, columns, facts["data_digest"])

    @classmethod
    def of(cls, commit: str) -> Self:
        """Those of a commit, from DVC's cache or remote. Raises PipelineError if they are not there."""
        from dvc.api import DVCFileSystem

        with TemporaryDirectory() as folder:
            try:
                files = DVCFileSystem(rev=commit)
                for path in READ:
                    copy = Path(folder, path)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    files.get(str(path), str(copy), recursive=True)
            except Exception as error:  # what DVC raises depends on git, the cache and the remote
                reason = in_a_line(error)[:300]
                raise PipelineError(f"{commit}: its results cannot be read: {reason}") from error
            with chdir(folder):
                return cls.read()


@click.command()
@click.argument("commit")
def main(commit: str) -> None:
    """Compare the results here with those of COMMIT."""
    other, here = Results.of(commit), Results.read()
    print("\n\n".join(page(commit, other, here)))


def page(commit: str, other: Results, here: Results) -> Iterator[str]:
    """The paragraphs of the comparison, in Markdown."""
    yield f"## Results, compared with `{commit}`"
    yield choice(commit, other.selection, here.selection)
    names = dict.fromkeys([*here.digests, *other.digests])
    changed = [name for name in names if other.digests.get(name) != here.digests.get(name)]
    table = variants(commit, other, here, changed)
    yield markdown_table(table) if changed else "All models are the same."
    if "difference" not in table:
        yield f"The images of `{commit}` are others, so the accuracies cannot be compared."
    elif table["difference"].any():
        yield NOTE
    for title, kind in DIFFS.items():
        yield f"### {title}\n\n{dvc_diff(kind, commit)}"


def choice(commit: str, other: Selection, here: Selection) -> str:
    """Which model would be chosen, in a sentence."""
    score = f"mean validation {in_words(here.metric)} {here.mean_validation_score:.4f}"
    if here.model_digest == other.model_digest:
        return f"The chosen model is the same: **{here.files.name}**, {score}."
    before = f"{other.files.name}, {other.mean_validation_score:.4f}"
    if other.metric != here.metric:
        before += f" ({in_words(other.metric)})"
    return f"The chosen model is **{here.files.name}**, {score}; at `{commit}` it is {before}."


def variants(commit: str, other: Results, here: Results, names: list[str]) -> pd.DataFrame:
    """A row for each of these variants: mean accuracies, and the difference on test images."""
    table = pd.DataFrame(index=pd.Index(names, name="variant"))
    for part in ("validation", "test"):
        for title, results in ((commit, other), ("here", here)):
            means = results.scores.groupby("variant")[f"{part}_accuracy"].mean()
            table[f"{part}, {title}"] = means.reindex(names).map(in_digits(".4f"))
    if here.data_digest == other.data_digest:
        table["difference"] = [difference(name, other.right, here.right) for name in names]
    return table


def difference(variant: str, other: pd.DataFrame, here: pd.DataFrame) -> str:
    """The difference of a variant's test accuracies in points, with its 95 % interval; "" if one has none."""
    if variant not in other or variant not in here:
        return ""
    per_image = np.mean(here[variant], axis=1) - np.mean(other[variant], axis=1)
    low, high = ttest_1samp(per_image, 0).confidence_interval()
    return f"{100 * per_image.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def dvc_diff(kind: str, commit: str) -> str:
    """What `dvc params diff` or `dvc metrics diff` prints."""
    command = [sys.executable, "-m", "dvc", kind, "diff", "--md", commit]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PipelineError(f"dvc {kind} diff: {in_a_line(done.stderr)[:300]}")
    return done.stdout.strip() or "No difference."
