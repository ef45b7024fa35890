"""Bring MLflow in line with DVC's files: log missing runs, evaluations, the report and the champion.

    python -m pipeline sync

A stage that DVC restores from its cache trains nothing and so logs no run. This logs what is missing from
data/prepared, recipes, models, metrics, evaluation, selection.json and reports. It changes nothing that is
there, so running it twice is safe.
"""

import click

from pipeline.core.arrays import read_facts
from pipeline.params import Params
from pipeline.shared.selection import Selection, read_selection
from pipeline.stages.promote import registry
from pipeline.stages.promote.repair import repair
from pipeline.stages.promote.stage import promote_selection
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.mlflow_outputs import describe_champion, log_evaluation, log_report
from pipeline.support.model_files import ModelFiles, all_models, remove_other_checkpoints
from pipeline.support.paths import EVALUATION, METRICS, MODELS, PREPARED, RECIPES, REPORTS, SELECTION


@click.command(cls=SingleInstance)
def main() -> None:
    """Log to MLflow what it lacks."""
    synchronize()


def synchronize() -> None:
    """Log what is missing, and print a line for each thing."""
    params = Params.read()
    check_inputs(RECIPES, SELECTION, EVALUATION, METRICS, MODELS, PREPARED, REPORTS)
    mlflow_store.check()
    experiment = read_facts(PREPARED / "split")["name"]
    done = [line for files in all_models() for line in sync_run(files, experiment)]
    done += [f"{name}: ended its run, which was killed" for name in mlflow_runs.end_killed(experiment)]
    removed = remove_other_checkpoints(all_models())
    done += [f"{name}: removed its checkpoint, since params.yaml does not name it" for name in removed]
    if SELECTION.is_file():
        selection = read_selection()
        done += sync_champion(experiment, selection, params)
        if (REPORTS / "model-card.md").is_file():
            log_report(experiment)
            describe_champion(experiment, selection.files)
    print("\n".join(f"sync: {line}" for line in done or ["nothing was missing"]))


def sync_run(files: ModelFiles, experiment: str) -> list[str]:
    """Log the run of a trained model and its evaluation if they are missing."""
    if not files.model.is_file():
        return []
    done = []
    if mlflow_runs.find_run(experiment, files.tags()) is None:
        from pipeline.running.complete_run import complete_run  # TensorFlow

        complete_run(files)
        done.append(f"{files.name}: logged its run")
    if files.scores.is_file() and files.divergence() is None and log_evaluation(files, experiment):
        done.append(f"{files.name}: logged its evaluation")
    return done


def sync_champion(name: str, selection: Selection, params: Params) -> list[str]:
    """Repair what two machines promoted at once. Promote the chosen model if the registry has no
    champion or has never seen this model; a version that was rolled back stays rolled back.
    """
    done = repair(name)
    known = any(
        version.tags.get("model_digest") == selection.model_digest for version in registry.versions(name)
    )
    if known and registry.version_at(name, registry.CHAMPION) is not None:
        return done
    return [*done, *promote_selection(selection, params).lines]
