"""Search better settings of a variant, on Ray: Optuna proposes them, ASHA stops the trials that are behind.

    python -m pipeline.search VARIANT [--trials N] [--sampler tpe|random] [--seed N]

Reads params.yaml, the ranges of search.yaml, and data/prepared; trials are judged by validation images. The
first trial is the variant as it is. Each is a run in the experiment NAME-search, under the run of the search.
An interrupted search resumes with the same command. Writes search/VARIANT/: all trials, what they show, and
the best one as a block for params.yaml, which is printed.
"""

import argparse
import sys
from dataclasses import asdict

from pipeline.integrity import check_inputs
from pipeline.learning.recipe import code_digest
from pipeline.params import Params
from pipeline.records import store, tracking
from pipeline.shared.arrays import digest_of, read_facts
from pipeline.shared.errors import PipelineError
from pipeline.shared.lock import command
from pipeline.shared.paths import PREPARED

try:
    from pipeline.running.connection import connect
    from pipeline.searching import findings
    from pipeline.searching.ranges import Ranges, read_ranges
    from pipeline.searching.runs import end_forgotten
    from pipeline.searching.tuning import SAMPLERS, Search, tuner
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed: run `make cluster`")


@command
def main() -> None:
    """Search, and say what was found."""
    search = arguments()
    params = one_thread(Params.read())
    params.training.check_versions()
    ranges = read_ranges(search.variant, params)
    check_inputs(PREPARED)
    store.check()
    connect()
    tags = decides(search, params, ranges)
    experiment, name = f"{params.data.dataset}-search", f"search-{search.variant}"
    with tracking.training_run(experiment, name, tags, resumed=True) as run_id:
        results = tuner(search, params, ranges, digest_of(tags)[:16], run_id).fit()
        end_forgotten(run_id)
        findings.write(search.variant, params, ranges, results)


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


def one_thread(params: Params) -> Params:
    """These params with trainings on one thread: side by side they are faster than on several."""
    return params.model_copy(update={"training": params.training.model_copy(update={"threads": 1})})


def decides(search: Search, params: Params, ranges: Ranges) -> dict[str, str]:
    """The tags of a search: all that decides its trials, so that the same search resumes."""
    content = {
        "ranges": {key: values.model_dump() for key, values in ranges.items()},
        "block": params.variants[search.variant].model_dump(),
        "training": params.training.model_dump(),
        "training_seed": params.seeds[0],
        "split_digest": read_facts(PREPARED / "split")["split_digest"],
        "code": [code_digest("recipes"), code_digest("train")],
    }
    return {key: str(value) for key, value in asdict(search).items()} | {"decided_by": digest_of(content)}


if __name__ == "__main__":
    main()
