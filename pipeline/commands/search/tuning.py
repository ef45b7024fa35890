"""Ray Tune's search: what runs a trial, what proposes its settings, what stops it."""

import logging
import os
import warnings
from dataclasses import dataclass

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline.commands.search.ranges import Ranges, present
from pipeline.commands.search.trial import trial
from pipeline.commands.search.trial_runs import TrialRuns
from pipeline.params import Params
from pipeline.running import ray_node
from pipeline.running.ray_connection import GIB, check_room
from pipeline.support.paths import SEARCHES

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


def tuner(search: Search, params: Params, ranges: Ranges, run_id: str) -> tune.Tuner:
    """A search in the run `run_id`, from where it was interrupted if it has begun."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray's tables; `TrialRuns` prints a line for each trial
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # what a killed search loses, at most
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # after Ctrl-C it would report a search as finished
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", "The reported value is ignored")  # of a trial that begins anew
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks; `TrialRuns` prints a line for each
    folder = (SEARCHES / run_id).absolute()
    if tune.Tuner.can_restore(folder):
        return tune.Tuner.restore(str(folder), trainable(search, params), resume_errored=True)
    return tune.Tuner(
        trainable(search, params),
        tune_config=tune.TuneConfig(
            search_alg=proposals(search, params, ranges),
            scheduler=stopping(search, params, ranges),
            num_samples=search.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[TrialRuns(run_id, search.variant)],
            failure_config=tune.FailureConfig(max_failures=FAILURES),
            verbose=0,
        ),
    )


def trainable(search: Search, params: Params) -> object:
    """The trial function with its data, and the resources that it takes of a node."""
    digest, data = ray_node.share_data()
    with_data = tune.with_parameters(
        trial, variant=search.variant, params=params, digest=digest, data=data, seed=params.seeds[0]
    )
    needs = params.cluster
    room = {"cpu": needs.cpus or 1, "gpu": needs.gpus or 0, "memory": needs.memory * GIB}
    check_room(*room.values())
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
    """Compares a trial early on with those before it, after 4 and 12 of 30 epochs; the best third go on."""
    tried = ranges["epochs"].ends if "epochs" in ranges else []
    most = max([params.variants[search.variant].epochs, *map(int, tried)])
    last = most + 1  # at which a training reports what it keeps
    return ASHAScheduler(**GOAL, max_t=last, grace_period=most // 9 + 1, reduction_factor=3)
