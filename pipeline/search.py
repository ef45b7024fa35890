"""Search for better settings of a variant, on Ray.

    python -m pipeline.search VARIANT [--trials N] [--sampler tpe|random] [--seed N]

Optuna proposes settings, and ASHA stops trials that fall behind on validation images. The first trial has the
variant's own values, as far as the ranges allow them. Each trial is a run in the experiment NAME-search,
under the run of the search. The same command resumes an interrupted search. Reads params.yaml, search.yaml
(the ranges) and data/prepared. Writes search/VARIANT/: all trials, figures, and the best trial as a block for
params.yaml, which it also prints.
"""

import argparse
import sys
from dataclasses import asdict

from pipeline.integrity import check_inputs
from pipeline.learning.recipe import code_digest
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.shared.arrays import digest_of, read_facts
from pipeline.shared.errors import PipelineError, one_line_errors
from pipeline.shared.lock import locked
from pipeline.shared.paths import PREPARED

try:
    from pipeline.running.connection import connect
    from pipeline.searching import findings
    from pipeline.searching.ranges import Ranges, read_ranges
    from pipeline.searching.runs import complete
    from pipeline.searching.tuning import SAMPLERS, Search, tuner
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed: run `make cluster`")


@one_line_errors
def main() -> None:
    """Run the search and print what it found, one search of a variant at a time."""
    asked = arguments()
    with locked(f"search-{asked.variant}"):
        run(asked)


def run(search: Search) -> None:
    """Run a search in its run, and write what it found."""
    params = one_thread(Params.read())
    params.training.check_versions()
    ranges = read_ranges(search.variant, params)
    check_inputs(PREPARED)
    store.check()
    tags = search_tags(search, params, ranges)
    connect()
    experiment, name = f"{params.data.dataset}-search", f"search-{search.variant}"
    again = "the same command"
    with tracking.training_run(experiment, name, tags, resumed=True, completed_by=again) as run_id:
        results = tuner(search, params, ranges, run_id).fit()
        complete(run_id, search.variant, results)
        findings.write(search.variant, params, ranges, results)


def arguments() -> Search:
    """The command's arguments. Raises PipelineError if one is not allowed."""
    parser = argparse.ArgumentParser(
        description="Search for better settings of a variant.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("variant", help="a variant of params.yaml that has ranges in search.yaml")
    parser.add_argument("--trials", type=int, default=40, help="how many settings to try")
    parser.add_argument("--sampler", default="tpe", help="Optuna's `tpe`, or `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    found = Search(**vars(parser.parse_args()))
    if found.trials < 1:
        raise PipelineError(f"--trials: must be a whole number from 1; received {found.trials}")
    if found.sampler not in SAMPLERS:
        raise PipelineError(f"--sampler: must be `tpe` or `random`; received {found.sampler!r}")
    return found


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


if __name__ == "__main__":
    main()
