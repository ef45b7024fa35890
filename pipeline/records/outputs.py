"""Logs what `evaluate` and `report` wrote to MLflow, unless it is there already."""

import mlflow

from pipeline.champion import registry
from pipeline.records import tracking
from pipeline.shared.arrays import digest_of, file_digest
from pipeline.shared.paths import REPORTS
from pipeline.shared.trained import Trained

LONGEST = 5000  # characters of a description, in MLflow's database
LOGGED = "evaluation_digest"  # the tag of a run that has the evaluation with this digest


def log_evaluation(trained: Trained, experiment: str) -> bool:
    """Log a model's scores, tables and figures to its run; whether that was necessary."""
    run = tracking.find_run(experiment, trained.tags())
    if run is None:
        print(f"{trained.name} has no MLflow run (its training came from DVC's cache): run `make sync`")
        return False
    files = [trained.scores, *trained.evaluation.iterdir()]
    digest = digest_of({path.name: file_digest(path) for path in files})
    if run.data.tags.get(LOGGED) == digest:
        return False
    client, run_id, scores = mlflow.MlflowClient(), run.info.run_id, trained.metrics()
    mlflow.log_metrics(
        {f"{part}/{key}": scores[part][key] for part in scores for key in scores[part]}, run_id=run_id
    )
    client.log_artifacts(run_id, str(trained.evaluation), "evaluation")
    client.set_tag(run_id, LOGGED, digest)
    return True


def log_report(experiment: str) -> None:
    """Log the report's files to the run `report`; the same report again logs nothing."""
    texts = {path.name: file_digest(path) for path in sorted(REPORTS.glob("*.md"))}
    tags = {"stage": "report", "report_digest": digest_of(texts)}
    if tracking.find_run(experiment, tags) is None:
        with tracking.training_run(experiment, "report", tags):
            mlflow.log_artifacts(str(REPORTS), "report")


def describe_champion(name: str, trained: Trained) -> None:
    """Make the first part of the model card the champion's description, if the champion is this model."""
    champion = registry.version_at(name, registry.CHAMPION)
    if champion is not None and champion.tags.get("model_digest") == trained.tags()["model_digest"]:
        _, _, card = (REPORTS / "model-card.md").read_text().split("---\n", 2)
        text = card.partition("\n## Results by class")[0].strip()[:LONGEST]
        if champion.description != text:
            mlflow.MlflowClient().update_model_version(name, champion.version, description=text)
