"""Logs to MLflow what `evaluate` and `report` wrote, unless it is there already."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import Run

from pipeline.support import job_results, mlflow_registry, mlflow_runs
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import printable
from pipeline.support.model_files import SERVED, ModelFiles
from pipeline.support.origin import git_commit
from pipeline.support.paths import RECIPES, REPORTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = dict[str, dict[str, float]]  # by part of the images and name

CARD = REPORTS / "model-card.md"
LONGEST = 5000  # characters of a description, in MLflow's database
WATTS = 10  # drawn by a busy core and its share of the server; an assumption, which the description states
LOGGED = "evaluation_digest"  # the tag of a run that has the evaluation with this digest


def log_evaluation(
    files: ModelFiles,
    checked: Callable[[str], Scores],
    facts: dict[str, Any],
    images: Mapping[str, np.ndarray],
) -> bool:
    """Log a model's scores, tables and figures to its run. Returns whether that was necessary.

    `checked` returns its scores, or raises PipelineError if they are not of the model with this digest.
    `facts` are those of the split, `images` its uint8 (n, height, width, channels) by part.
    """
    tags = files.tags()
    run = mlflow_runs.find_run(facts["name"], tags)
    if run is None:
        print(printable(f"{files.name}: MLflow has no complete run of it: run `make sync`"))
        return False
    copied_in = job_results.copied_in(digest_of(files.record().identity))
    mlflow_runs.note(run, files.name, dvc_experiment=run.data.tags.get("dvc_experiment", copied_in))
    mlflow_runs.supersede(run, files.name)
    outputs = [files.scores, *files.evaluation.iterdir()]
    digest = digest_of({path.name: file_digest(path) for path in outputs})
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    if run.data.tags.get(LOGGED) == digest and client.list_artifacts(run_id, "evaluation"):
        return False
    for key, value in starts_from(files).items():
        client.log_param(run_id, key, value)
    log_scores(files.name, checked(tags["model_digest"]), run, facts, images)
    with copy_of(files.evaluation) as folder:
        client.log_artifacts(run_id, folder, "evaluation")
    client.set_tag(run_id, LOGGED, digest)
    return True


def starts_from(files: ModelFiles) -> dict[str, str]:
    """The parameter `init_from` of a fine-tuning: the variant that it starts from."""
    recipe = RECIPES / files.variant / "recipe.json"
    found = json.loads(recipe.read_text())["init_from"] if recipe.is_file() else None
    return {"init_from": found} if found else {}


@contextmanager
def copy_of(path: Path) -> Iterator[str]:
    """The path of a copy of a file or folder, for MLflow.

    The files may be links into DVC's cache. MLflow (3.17) refuses symbolic links, and keeps the mode, so
    artifacts could be read-only.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        if path.is_dir():
            shutil.copytree(path, copy, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, copy)
        yield str(copy)


def log_scores(
    name: str, scores: Scores, run: Run, facts: dict[str, Any], images: Mapping[str, np.ndarray]
) -> None:
    """Log what changed of a model's scores, each with the model and the images that it belongs to."""
    model = mlflow_runs.logged_model(run.info.run_id, name)
    for part, values in scores.items():
        of_images = part.removesuffix(SERVED)
        dataset = mlflow_runs.dataset(facts, of_images, images[of_images])
        named = {f"{part}/{key}": value for key, value in values.items()}
        changed = {key: value for key, value in named.items() if run.data.metrics.get(key) != value}
        mlflow.log_metrics(
            changed,
            timestamp=mlflow_runs.time_after(run, changed),
            run_id=run.info.run_id,
            model_id=model.model_id if model else None,
            dataset=dataset,
        )


def log_report(experiment: str, frontier: "Figure | None" = None) -> None:
    """Log the report's files to this folder's run `report`; the same report again logs nothing.

    The figure of accuracy against training time comes with them, but is no file of the report, whose bytes
    are reproducible.
    """
    digest = digest_of({path.name: file_digest(path) for path in sorted(REPORTS.iterdir())})
    run = mlflow_runs.find_run(experiment, {"report_digest": digest})
    if run is None or not mlflow.MlflowClient().list_artifacts(run.info.run_id, "report"):
        with mlflow_runs.training_run(experiment, "report", {"stage": "report"}, resumed=True):
            with copy_of(REPORTS) as folder:
                mlflow.log_artifacts(folder, "report")
            if frontier is not None:
                mlflow.log_figure(frontier, "report/frontier.png")
            mlflow.set_tags({"report_digest": digest, "git_commit": git_commit()})


def describe_versions(name: str) -> None:
    """Describe the versions of the model that the card is about, by the card. Without a card, do nothing.

    `promote` and `report` call it, so the one that runs second writes the description.
    """
    header, _, card = CARD.read_text().partition("\n---\n") if CARD.is_file() else ("", "", "")
    found = re.search('^model_digest: "?([0-9a-f]{64})', header, re.MULTILINE)
    for version in mlflow_registry.versions(name, found[1]) if found else []:
        spent = cost(name, version.tags["model_digest"])
        text = card.partition("\n## Results by class")[0].strip()[: LONGEST - len(spent)] + spent
        if version.description != text:
            mlflow.MlflowClient().update_model_version(name, version.version, description=text)


def cost(experiment: str, digest: str) -> str:
    """A paragraph on what a training cost. Not in the card's file, whose bytes are reproducible."""
    minutes = cpu_minutes(experiment, digest)
    if minutes is None:
        return ""
    time = f"{minutes:.1f} CPU minutes" if minutes >= 1 else f"{60 * minutes:.2g} CPU seconds"
    energy = f"an estimated {minutes / 60 * WATTS:.2g} Wh if a busy core takes {WATTS} W"
    return f"\n\n## Cost\n\nThe training took {time}, {energy}."


def cpu_minutes(experiment: str, digest: str) -> float | None:
    """The CPU minutes of a model's training, if MLflow has its run and it was trained on CPUs."""
    run = mlflow_runs.find_run(experiment, {"model_digest": digest})
    if run is None or "cpu_seconds" not in run.data.metrics or run.data.params.get("device") != "cpu":
        return None
    return run.data.metrics["cpu_seconds"] / 60
