"""How cost grows: an epoch with its images, promote and report with the runs that the store holds."""

import sqlite3
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import steps
from benchmarks.measure import run, summary
from benchmarks.steps import FLOAT32
from benchmarks.whole import write_data
from pipeline.params import Params

COPIED = ("runs", "tags", "params", "latest_metrics")  # tables whose rows are a run's by its run_uuid


def by_images(folder: Path, prepared: Path, counts: list[int], epochs: int) -> dict[str, Any]:
    """Seconds an epoch of `deep_dropout`, on one thread, by training images."""
    variant = Params.read().variants["deep_dropout"]
    found = {}
    for count in counts:
        data = folder / f"images-{count}"
        write_data(data, prepared, {"train": count, "validation": 500})
        rounds = list(steps.taking_turns(variant, data, epochs, [FLOAT32]))
        found[str(count)] = {clock: summary([one[0][clock] for one in rounds]) for clock in ("wall", "cpu")}
        print(f"bench: growth: {count} images: {found[str(count)]['wall']['median']:.2f} s", flush=True)
    return found


def by_runs(project: Path, counts: list[int], times: int) -> dict[str, Any]:
    """Seconds of promote and report in a finished job, by runs in its store."""
    store = project / "mlflow.db"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    found: dict[str, Any] = {}
    for count in counts:
        multiply_runs(store, count)
        found[str(count)] = {}
        for stage in ("promote", "report"):
            seconds = [
                run([sys.executable, "-m", "pipeline", stage], project, environment) for _ in range(times + 1)
            ]
            found[str(count)][stage] = {
                clock: summary([one[clock] for one in seconds[1:]]) for clock in ("wall", "cpu")
            }
        line = ", ".join(f"{stage} {of['wall']['median']:.2f} s" for stage, of in found[str(count)].items())
        print(f"bench: growth: {count} runs: {line}", flush=True)
    return found


def multiply_runs(store: Path, count: int) -> None:
    """Copy finished trainings in a store, under new ids and other seeds, until it holds `count` runs."""
    with closing(sqlite3.connect(store)) as database, database:
        originals = [
            row[0] for row in database.execute("select run_uuid from runs where status = 'FINISHED'")
        ]
        missing = count - database.execute("select count(*) from runs").fetchone()[0]
        for number in range(max(missing, 0)):
            copy_run(database, originals[number % len(originals)], uuid.uuid4().hex, number)


def copy_run(database: sqlite3.Connection, original: str, new: str, number: int) -> None:
    """A run's rows once more, as of another model. The names in the statements are the store's own."""
    for table in COPIED:
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        chosen = ", ".join(f"'{new}'" if column == "run_uuid" else column for column in columns)
        copied = f"insert into {table} select {chosen} from {table} where run_uuid = ?"  # noqa: S608
        database.execute(copied, (original,))
    changed = {"model_digest": new * 2, "seed": str(1000 + number)}
    for key, value in changed.items():
        database.execute("update tags set value = ? where run_uuid = ? and key = ?", (value, new, key))
