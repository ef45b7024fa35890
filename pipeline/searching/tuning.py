"""Ray Tune's search: what runs a trial, what proposes its settings, what stops it."""

import os
from dataclasses import dataclass

import mlflow
import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline.params import Params
from pipeline.running import cluster
from pipeline.searching.ranges import Ranges, present
from pipeline.searching.runs import TrialRuns
from pipeline.searching.trial import trial
from pipeline.shared.paths import SEARCHES

SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
GOAL = {"metric": "accuracy", "mode": "max"}
FAILURES = 3  # of a trial, if its worker dies


@dataclass(frozen=True)
class Search:
    """What is searched, and how; `seed` is that of the sampler."""

    variant: str
    trials: int
    sampler: str
    seed: int


def tuner(search: Search, params: Params, ranges: Ranges, key: str, run_id: str) -> tune.Tuner:
    """A search whose state is kept under `key`, from where it was interrupted if it has begun."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray's tables; `TrialRuns` prints a line for each trial
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # what a killed search loses, at most
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = (SEARCHES / key).absolute()
    if tune.Tuner.can_restore(folder):
        return tune.Tuner.restore(str(folder), trainable(search, params), restart_errored=True)
    experiment = mlflow.get_run(run_id).info.experiment_id
    return tune.Tuner(
        trainable(search, params),
        tune_config=tune.TuneConfig(
            search_alg=proposals(search, params, ranges),
            scheduler=stopping(search, params, ranges),
            num_samples=search.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=key,
            storage_path=str(folder.parent),
            callbacks=[TrialRuns(experiment, run_id, search.variant)],
            failure_config=tune.FailureConfig(max_failures=FAILURES),
            verbose=0,
        ),
    )


def trainable(search: Search, params: Params) -> object:
    """A trial with the data, and the room that it takes of a node."""
    digest, data = cluster.share_data()
    with_data = tune.with_parameters(
        trial, variant=search.variant, params=params, digest=digest, data=data, seed=params.seeds[0]
    )
    needs = params.cluster
    room = {"cpu": needs.cpus or 1, "gpu": needs.gpus or 0, "memory": needs.memory * cluster.GIB}
    return tune.with_resources(with_data, room)


def proposals(search: Search, params: Params, ranges: Ranges) -> OptunaSearch:
    """Proposes settings: the present ones first."""
    return OptunaSearch(
        {key: values.distribution() for key, values in ranges.items()},
        **GOAL,
        sampler=SAMPLERS[search.sampler](seed=search.seed),
        points_to_evaluate=[present(params.variants[search.variant], ranges)],
    )


def stopping(search: Search, params: Params, ranges: Ranges) -> ASHAScheduler:
    """Stops two thirds of the trials after a ninth of the epochs, and again after a third."""
    tried = ranges["epochs"].ends if "epochs" in ranges else []
    most = max([params.variants[search.variant].epochs, *map(int, tried)])
    last = most + 1  # at which a training reports what it keeps
    return ASHAScheduler(**GOAL, max_t=last, grace_period=max(1, most // 9), reduction_factor=3)
