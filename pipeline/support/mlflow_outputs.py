"""Logs to MLflow what `evaluate` and `report` wrote, unless it is there already."""

from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Run

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.stages.promote import registry
from pipeline.support import mlflow_runs
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED, REPORTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = (
    "Classifies images. The version with the alias `champion` is served, `previous` was champion before it. "
    "The description of a champion comes from its model card."
)
LONGEST = 5000  # characters of a description, in MLflow's database
WATTS = 10  # drawn by a busy core and its share of the server; an assumption, which the description states
LOGGED = "evaluation_digest"  # the tag of a run that has the evaluation with this digest


def log_evaluation(files: ModelFiles, experiment: str) -> bool:
    """Log a model's scores, tables and figures to its run. Returns whether that was necessary."""
    run = mlflow_runs.find_run(experiment, files.tags())
    if run is None:
        print(f"{files.name}: MLflow has no complete run of it: run `make sync`")
        return False
    outputs = [files.scores, *files.evaluation.iterdir()]
    digest = digest_of({path.name: file_digest(path) for path in outputs})
    if run.data.tags.get(LOGGED) == digest:
        return False
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    log_scores(files, run)
    client.log_artifacts(run_id, str(files.evaluation), "evaluation")
    client.set_tag(run_id, LOGGED, digest)
    return True


def log_scores(files: ModelFiles, run: Run) -> None:
    """Log what changed of a model's scores, each with the model and the images that it belongs to."""
    facts, scores = read_facts(PREPARED / "split"), files.metrics()
    model = mlflow_runs.logged_model(run.info.run_id, files.name)
    for part, values in scores.items():
        of_images = part.partition("_")[0]  # `test_mirror` is of the same images as `test`
        dataset = mlflow_runs.dataset(facts, of_images, read_arrays(PREPARED / of_images)["images"])
        named = {f"{part}/{key}": value for key, value in values.items()}
        mlflow.log_metrics(
            {key: value for key, value in named.items() if run.data.metrics.get(key) != value},
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
    if mlflow_runs.find_run(experiment, {"report_digest": digest}) is None:
        with mlflow_runs.training_run(experiment, "report", {"stage": "report"}, resumed=True):
            mlflow.log_artifacts(str(REPORTS), "report")
            if frontier is not None:
                mlflow.log_figure(frontier, "report/frontier.png")
            mlflow.set_tags({"report_digest": digest, "git_commit": mlflow_runs.git_commit()})


def describe_champion(name: str, files: ModelFiles) -> None:
    """Describe the registered model, and the champion by its card if it is this model."""
    client = mlflow.MlflowClient()
    champion = registry.version_at(name, registry.CHAMPION)
    if champion is not None and champion.tags.get("model_digest") == files.tags()["model_digest"]:
        card = (REPORTS / "model-card.md").read_text().partition("\n---\n")[2]
        spent = cost(name, files)
        text = card.partition("\n## Results by class")[0].strip()[: LONGEST - len(spent)] + spent
        if champion.description != text:
            client.update_model_version(name, champion.version, description=text)
            client.update_registered_model(name, NOTE)


def cost(experiment: str, files: ModelFiles) -> str:
    """A paragraph on what a training cost. Not in the card's file, whose bytes are reproducible."""
    minutes = cpu_minutes(experiment, files)
    if minutes is None:
        return ""
    energy = f"an estimated {minutes / 60 * WATTS:.1f} Wh if a busy core takes {WATTS} W"
    return f"\n\n## Cost\n\nThe training took {minutes:.1f} CPU minutes, {energy}."


def cpu_minutes(experiment: str, files: ModelFiles) -> float | None:
    """The CPU minutes of a training, if MLflow has its run and it was trained on CPUs."""
    run = mlflow_runs.find_run(experiment, files.tags())
    if run is None or "cpu_seconds" not in run.data.metrics or run.data.params.get("device") != "cpu":
        return None
    return run.data.metrics["cpu_seconds"] / 60
