"""Search better settings of a variant, on Ray: Optuna proposes them, ASHA stops the trials that are behind.

    python -m pipeline.search VARIANT [--trials N] [--sampler tpe|random] [--seed N]

Reads params.yaml, the ranges of search.yaml, and data/prepared; trials are judged by validation images. The
first trial is the variant as it is. Each is a run in the experiment NAME-search, under the run of the search.
An interrupted search resumes with the same command. Writes search/VARIANT/: all trials, what they show, and
the best one as a block for params.yaml, which is printed.
"""

import argparse
import os
from dataclasses import asdict, dataclass

import mlflow
import optuna
from optuna.samplers import RandomSampler, TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline.integrity import check_inputs
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.running import cluster
from pipeline.searching import findings
from pipeline.searching.ranges import Ranges, present, read_ranges
from pipeline.searching.runs import TrialRuns, end_forgotten
from pipeline.searching.trial import trial
from pipeline.shared.arrays import digest_of, read_facts
from pipeline.shared.errors import PipelineError
from pipeline.shared.lock import command
from pipeline.shared.paths import PREPARED, SEARCHES

SAMPLERS = {"tpe": TPESampler, "random": RandomSampler}
FAILURES = 3  # of a trial, if its worker dies


@dataclass(frozen=True)
class Search:
    """What is searched, and how; `seed` is that of the sampler."""

    variant: str
    trials: int
    sampler: str
    seed: int


@command
def main() -> None:
    """Search, and say what was found."""
    search = arguments()
    params = one_thread(Params.read())
    params.training.check_versions()
    ranges = read_ranges(search.variant, params)
    check_inputs(PREPARED)
    facts = read_facts(PREPARED / "split")
    store.check()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray's tables; `TrialRuns` prints a line for each trial
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # what a killed search loses, at most
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cluster.connect()
    tags = asdict(search) | {
        "ranges": digest_of({key: values.model_dump() for key, values in ranges.items()})
    }
    tags |= {"block": digest_of(params.variants[search.variant].model_dump()), "split": facts["split_digest"]}
    tags = {key: str(value) for key, value in tags.items()}
    name = f"search-{search.variant}"
    with tracking.training_run(f"{facts['name']}-search", name, tags, resumed=True) as run_id:
        results = tuner(search, params, ranges, digest_of(tags)[:16], run_id).fit()
        end_forgotten(run_id)
        findings.write(search.variant, params, ranges, results)
    cluster.leave()


def one_thread(params: Params) -> Params:
    """These params with trainings on one thread: side by side they are faster than on several."""
    return params.model_copy(update={"training": params.training.model_copy(update={"threads": 1})})


def arguments() -> Search:
    """The command's arguments. Raises PipelineError if one is not allowed."""
    parser = argparse.ArgumentParser(description="Search better settings of a variant.")
    parser.add_argument("variant", help="a variant of params.yaml that has ranges in search.yaml")
    parser.add_argument("--trials", type=int, default=40, help="how many settings to try")
    parser.add_argument("--sampler", default="tpe", help="Optuna's `tpe`, or `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    found = Search(**vars(parser.parse_args()))
    if found.trials < 1:
        raise PipelineError(f"--trials: whole numbers from 1 are allowed; received {found.trials}")
    if found.sampler not in SAMPLERS:
        raise PipelineError(f"--sampler: `tpe` and `random` are allowed; received {found.sampler!r}")
    return found


def tuner(search: Search, params: Params, ranges: Ranges, key: str, run_id: str) -> tune.Tuner:
    """Ray's search, from where it was interrupted if it has begun."""
    variant, needs = params.variants[search.variant], params.cluster
    digest, data = cluster.share_data()
    with_data = tune.with_parameters(
        trial, variant=search.variant, params=params, digest=digest, data=data, seed=params.seeds[0]
    )
    room = {"cpu": needs.cpus or 1, "memory": needs.memory * cluster.GIB}
    trainable = tune.with_resources(with_data, room | ({"gpu": needs.gpus} if needs.gpus else {}))
    folder = (SEARCHES / key).absolute()
    if tune.Tuner.can_restore(folder):
        return tune.Tuner.restore(str(folder), trainable, restart_errored=True)
    experiment = mlflow.get_run(run_id).info.experiment_id
    proposals = OptunaSearch(
        {name: values.distribution() for name, values in ranges.items()},
        metric="accuracy",
        mode="max",
        sampler=SAMPLERS[search.sampler](seed=search.seed),
        points_to_evaluate=[present(variant, ranges)],
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=proposals,
            scheduler=ASHAScheduler(
                metric="accuracy",
                mode="max",
                max_t=variant.epochs + 1,  # the last is what the training keeps
                grace_period=max(1, variant.epochs // 9),
                reduction_factor=3,
            ),
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


if __name__ == "__main__":
    main()
