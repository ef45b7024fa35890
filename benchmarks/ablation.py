"""What each part of the speedrun contributes: it is trained without one part at a time, with three seeds.

    python -m benchmarks.ablation FOLDER [--jobs N]

Trains at half the epochs and half the filters of `speedrun`, in FOLDER, with the data of params.yaml. After
each training it writes the validation accuracy to benchmarks/ablation.json and the table docs/ablation.md.
Finished trainings are not repeated, so the work can be spread over several days and machines; one that was
stopped resumes. Trainings of another split are refused.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from ruamel.yaml import YAML
from scipy.stats import dunnett

from benchmarks.measure import run
from pipeline.commands.job_folder import lay_out
from pipeline.core.arrays import read_facts, write_json
from pipeline.stages.report.tables import in_digits, markdown_table
from pipeline.support.errors import PipelineError, one_line_errors
from pipeline.support.paths import PREPARED

FOUND, TABLE = Path("benchmarks/ablation.json"), Path("docs/ablation.md")
SEEDS = (0, 1, 2)
WHOLE = "speedrun"
WITHOUT: dict[str, dict[str, Any]] = {  # the part, and the changes of the variant's block that take it away
    "whitening": {"whitening": None},
    "identity_kernels": {"identity_kernels": None},
    "scaled_biases": {"optimizer": {"bias_scale": 1.0}},
    "nesterov": {"optimizer": {"nesterov": False}},
    "l2": {"optimizer": {"l2": 0.0}},
    "schedule": {"optimizer": {"learning_rate": 0.41}},  # the mean of the triangle that rises to 0.75
    "label_smoothing": {"label_smoothing": 0.0},
    "lookahead": {"lookahead": None},
    "flips": {"flip": None},
    "alternating_flips": {"flip": "random"},
    "shifts": {"network": {"shift": 0}},
    "bfloat16": {"precision": "float32"},
}
INTRODUCTION = """\
# What each part of the speedrun contributes

Validation accuracy of `speedrun` without one part at a time, with half of its epochs ({epochs}) and half of
its filters ({widths}); the difference from the whole recipe in percentage points. The intervals and
p-values are Dunnett's: for other seeds, with their standard deviation pooled, and at once for all parts. So
a part matters if its p-value is below .05; any other may matter by as much as its interval has. The images
are those of [results.md](results.md). Made by `python -m benchmarks.ablation`.

"""


@one_line_errors
def main() -> None:
    """Train what has no accuracy yet, and write the table."""
    parser = argparse.ArgumentParser(description="Train the speedrun without each of its parts.")
    parser.add_argument("folder", type=Path, help="where to train; a folder that is continued, or a new one")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    arguments = parser.parse_args()
    params = YAML(typ="safe").load(Path("params.yaml"))
    whole = halved(params["variants"][WHOLE])
    variants = {WHOLE: whole} | {f"without_{part}": changed(whole, part) for part in WITHOUT}
    params |= {"variants": variants, "seeds": list(SEEDS), "published": {}}
    params.pop("finetune", None)
    found = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    todo = [(name, seed) for seed in SEEDS for name in variants if str(seed) not in found.get(name, {})]
    if todo:
        lay_out(arguments.folder, json.dumps(params))
        run(["dvc", "repro", "recipes"], arguments.folder, {})
        check_split(found, arguments.folder)
    files = Parallel(arguments.jobs, prefer="threads", return_as="generator_unordered")(
        delayed(train)(arguments.folder, name, seed) for name, seed in todo
    )
    for name, seed, record in files:
        found.setdefault(name, {})[str(seed)] = record
        write(found, whole)
        print(f"{name}-{seed}: {record}", flush=True)
    write(found, whole)


def halved(block: Mapping[str, Any]) -> dict[str, Any]:
    """The whole recipe with half the epochs and filters, in bfloat16 on any machine."""
    network = block["network"] | {"widths": [width // 2 for width in block["network"]["widths"]]}
    return {**block, "network": network, "epochs": block["epochs"] // 2, "precision": "mixed_bfloat16"}


def check_split(found: dict[str, dict[str, dict[str, Any]]], folder: Path) -> None:
    """Raise PipelineError if the trainings of another split are known already."""
    split = read_facts(folder / PREPARED / "split")["split_digest"]
    if {record["split"] for seeds in found.values() for record in seeds.values()} - {split}:
        raise PipelineError(f"{FOUND}: has trainings of another split than {folder}")


def changed(block: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A variant's block without a part."""
    new = dict(deepcopy(block))
    for key, value in WITHOUT[part].items():
        new[key] = new[key] | value if isinstance(value, dict) else value
    return new


def train(folder: Path, name: str, seed: int) -> tuple[str, int, dict[str, Any]]:
    """Train a variant with a seed; its accuracy, None if it diverged, and the split that it is of."""
    run([sys.executable, "-m", "pipeline", "train", name, str(seed)], folder, {})
    record = json.loads((folder / f"models/{name}-{seed}/training.json").read_text())
    accuracy, split = record["metrics"].get("validation/accuracy"), record["tags"]["split_digest"]
    return name, seed, {"accuracy": accuracy, "split": split}


def write(found: dict[str, dict[str, dict[str, Any]]], whole: dict[str, Any]) -> None:
    """Write what is known, and its table."""
    write_json(FOUND, found)
    widths = ", ".join(map(str, whole["network"]["widths"]))
    introduction = INTRODUCTION.format(epochs=whole["epochs"], widths=widths)
    TABLE.write_text(introduction + markdown_table(table(found)) + "\n")


def table(found: dict[str, dict[str, dict[str, Any]]]) -> pd.DataFrame:
    """A row for each part, the one that contributes most first. Parts are compared if the whole is known."""
    accuracies = pd.DataFrame(
        {name: {seed: record["accuracy"] for seed, record in seeds.items()} for name, seeds in found.items()}
    ).T.astype(float)
    rows = accuracies.agg(["mean", "std", "count"], axis=1).rename_axis("variant").sort_values("mean")
    shown = pd.DataFrame(
        {
            "validation": rows["mean"].map(in_digits(".4f")),
            "sd": rows["std"].map(in_digits(".4f")),
            "n": rows["count"].map(in_digits(".0f")),
        }
    )
    values = {name: row.dropna().to_numpy() for name, row in accuracies.loc[rows.index].iterrows()}
    control = values.pop(WHOLE, np.empty(0))
    if len(control) > 1 and values and all(map(len, values.values())):
        compared = dunnett(*values.values(), control=control, random_state=np.random.default_rng(0))
        interval = compared.confidence_interval()
        of_parts = pd.DataFrame(
            {
                "points": [f"{100 * (of.mean() - control.mean()):+.2f}" for of in values.values()],
                "95 % interval": [
                    f"{100 * low:+.1f} to {100 * high:+.1f}"
                    for low, high in zip(interval.low, interval.high, strict=True)
                ],
                "p": ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in compared.pvalue],
            },
            index=list(values),
        )
        shown = shown.join(of_parts).fillna("")
    return shown


if __name__ == "__main__":
    main()
