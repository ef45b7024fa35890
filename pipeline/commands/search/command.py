"""Search for better settings of a variant, on Ray.

    python -m pipeline search VARIANT [--trials N] [--sampler tpe|random] [--seed N]

Optuna proposes settings, and ASHA stops trials that fall behind on validation images. The first trial has the
variant's own values, as far as the ranges allow them. Each trial is a run in the experiment NAME-search,
under the run of the search. The same command resumes an interrupted search. Reads params.yaml, search.yaml
(the ranges) and data/prepared. Writes search/VARIANT/: all trials, figures, and the best trial as a block for
params.yaml, which it also prints.
"""

import sys
from dataclasses import asdict

import click

from pipeline.core.arrays import read_facts
from pipeline.core.keys import code_digest
from pipeline.core.recipe import check_versions
from pipeline.params import Params
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.digests import digest_of
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.paths import PARAMS, PREPARED

try:
    from pipeline.commands.search import findings
    from pipeline.commands.search.ranges import Ranges, read_ranges
    from pipeline.commands.search.trial_runs import complete
    from pipeline.commands.search.tuning import Search, tuner
    from pipeline.running.ray_connection import connect
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed: run `make cluster`")


@click.command(cls=SingleInstance)
@click.argument("variant")
@click.option("--trials", type=click.IntRange(1), default=40, show_default=True, help="How many settings.")
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampler.")
def main(variant: str, trials: int, sampler: str, seed: int) -> None:
    """Search for better settings of a variant that has ranges in search.yaml."""
    run(Search(variant, trials, sampler, seed))


def run(search: Search) -> None:
    """Run a search in its run, and write what it found."""
    params = one_thread(Params.read())
    check_versions(params.training.versions, f"{PARAMS}: training")
    ranges = read_ranges(search.variant, params)
    check_inputs(PREPARED)
    mlflow_store.check()
    tags = search_tags(search, params, ranges)
    connect()
    experiment, name = f"{params.data.dataset}-search", f"search-{search.variant}"
    again = "the same command"
    with mlflow_runs.training_run(experiment, name, tags, resumed=True, completed_by=again) as run_id:
        results = tuner(search, params, ranges, run_id).fit()
        complete(run_id, search.variant, results)
        findings.write(search.variant, params, ranges, results)


def one_thread(params: Params) -> Params:
    """These params with trainings on one thread: side by side they are faster than on several."""
    return params.model_copy(update={"training": params.training.model_copy(update={"threads": 1})})


def search_tags(search: Search, params: Params, ranges: Ranges) -> dict[str, str]:
    """The tags of a search: all that decides its trials, so that the same search resumes."""
    content = {
        "ranges": {key: values.model_dump() for key, values in ranges.items()},
        "block": params.variants[search.variant].model_dump(),
        "training": params.training.model_dump(),
        "training_seed": params.seeds[0],
        "gpus": params.cluster.gpus,
        "split_digest": read_facts(PREPARED / "split")["split_digest"],
        "code": [code_digest("recipes"), code_digest("train")],
    }
    return {key: str(value) for key, value in asdict(search).items()} | {"decided_by": digest_of(content)}
