"""Make MLflow tell what DVC's files hold: missing runs, evaluations, report and champion.

    python -m pipeline.sync

A stage that DVC restores from its cache trains nothing and so makes no run. This recreates what is
missing from params.yaml, data/prepared, models, metrics, evaluation, champion.json and reports. What is
there is left alone, so running it twice changes nothing.
"""

import json

import mlflow

from pipeline.champion import registry
from pipeline.champion.repair import repair
from pipeline.champion.selection import divergence, model_tags
from pipeline.data.arrays import file_digest, read_arrays, read_facts
from pipeline.errors import one_line_errors
from pipeline.evaluate import log_evaluation
from pipeline.integrity import check_inputs
from pipeline.learning import models
from pipeline.learning.checkpoint import remove_others
from pipeline.learning.training import Images
from pipeline.params import Params
from pipeline.paths import CHAMPION, EVALUATION, METRICS, MODELS, PREPARED, REPORTS
from pipeline.promote import promote_in_registry
from pipeline.records import recording, store, tracking
from pipeline.report import log_report
from pipeline.running.lock import alone
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Recreate what is missing, with a line for each thing that was."""
    params = read_params(Params)
    check_inputs(CHAMPION, EVALUATION, METRICS, MODELS, PREPARED, REPORTS)
    store.check()
    facts = read_facts(PREPARED / "split")
    names = [f"{variant}-{seed}" for variant, seed in params.trained_models]
    done = [line for name in names for line in sync_run(name, facts["name"])]
    done += [f"{name}: ended its run, which was killed" for name in tracking.end_killed(facts["name"])]
    done += [f"{name}: removed its checkpoint, as no variant has it" for name in remove_others(names)]
    if (REPORTS / "report.md").is_file():
        log_report(facts["name"], (REPORTS / "report.md").read_text())
    if CHAMPION.is_file():
        done += sync_champion(facts["name"], params)
    print("\n".join(f"sync: {line}" for line in done or ["nothing was missing"]))


def sync_run(name: str, experiment: str) -> list[str]:
    """Recreate the run of models/VARIANT-SEED, and its evaluation, where they are missing."""
    if not (MODELS / name / "training.json").is_file():
        return []
    done = []
    if tracking.find_run(experiment, model_tags(name)) is None:
        complete_run(name, experiment)
        done.append(f"{name}: completed its run")
    run = tracking.find_run(experiment, model_tags(name))
    scored = (METRICS / f"{name}.json").is_file() and divergence(name) is None
    if run is not None and scored and "test/accuracy" not in run.data.metrics and log_evaluation(name):
        done.append(f"{name}: logged its evaluation")
    return done


def complete_run(name: str, experiment: str) -> None:
    """The run that training makes, from the files that the training left: the one that it began, if any."""
    folder = MODELS / name
    kept = tracking.read_training(folder)
    model = models.load(folder / "model.keras")
    train, validation = (Images(**read_arrays(PREPARED / part)) for part in ("train", "validation"))
    made_by = {key: value for key, value in kept["tags"].items() if key not in {"status", "reason"}}
    with tracking.training_run(experiment, name, made_by, resumed=True) as run_id:
        mlflow.set_tag("recreated", "true")
        used = train.first(kept["params"].get("training_images"))
        recording.record(folder, model, used, validation, run_id)


def sync_champion(name: str, params: Params) -> list[str]:
    """Put in order what two machines promoted at once, and promote the decision's model where the registry
    has no champion or has never seen this model. A version that was rolled back stays rolled back.
    """
    done = repair(name)
    decision = json.loads(CHAMPION.read_text())
    model = MODELS / f"{decision['variant']}-{decision['seed']}" / "model.keras"
    known = registry.known_version(name, {"model_digest": file_digest(model)})
    if known is not None and registry.version_at(name, registry.CHAMPION) is not None:
        return done
    return [*done, promote_in_registry(decision, params)]


if __name__ == "__main__":
    main()
