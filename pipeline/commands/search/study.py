"""The Optuna study of a search: where it is stored, what proposes settings, and what stops trials."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.commands.search.ranges import Ranges, present
from pipeline.core.arrays import read_facts
from pipeline.core.result_keys import code_digest
from pipeline.params import Params
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.paths import PREPARED, SEARCHES

SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
BEGUN = (TrialState.RUNNING, *ENDED)


@dataclass(frozen=True)
class Search:
    """What is searched, and how: `trials` settings, each with `seeds` trainings; `seed` is the sampler's."""

    variant: str
    params: Params
    ranges: Ranges
    trials: int
    seeds: int
    sampler: str
    seed: int

    @property
    def metric(self) -> str:
        """The metric of validation images that a trial's value is; of a loss, minus that."""
        return self.params.promotion.metric

    def tags(self) -> dict[str, str]:
        """All that decides the trials, but not how many there are, so more of them continue the search."""
        content = {
            "ranges": {key: values.model_dump() for key, values in self.ranges.items()},
            "block": self.params.variants[self.variant].model_dump(),
            "training": self.params.training.model_dump(),
            "training_seed": self.params.seeds[0],
            "metric": self.metric,
            "split_digest": read_facts(PREPARED / "split")["split_digest"],
            "code": [code_digest("recipes"), code_digest("train")],
        }
        own: dict[str, Any] = {name: getattr(self, name) for name in ("variant", "seeds", "sampler", "seed")}
        return {key: str(value) for key, value in own.items()} | {"decided_by": digest_of(content | own)}


def open_study(search: Search) -> optuna.Study:
    """The study of a search, new if it has none, in a file for all searches of its variant.

    Raises PipelineError if the file cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", "The reported value is ignored")  # of an epoch that is done again
    file = SEARCHES / f"{search.variant}.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{file.absolute()}?timeout=60",  # seconds to wait for other threads
            study_name=search.tags()["decided_by"],
            pruner=make_pruner(search),
            direction="maximize",
            load_if_exists=True,
        )
    except (SQLAlchemyError, RuntimeError) as error:  # damaged, of another version of Optuna
        reason = in_a_line(str(error).partition("[SQL")[0])
        raise PipelineError(f"{file}: {reason}; delete it to begin anew") from error
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(present(search.params.variants[search.variant], search.ranges))
    return study


def make_pruner(search: Search) -> optuna.pruners.BasePruner:
    """Compares a trial early with all that came as far, after 4 and 12 of 30 epochs: the best third go on.

    It needs no trials that finished, so it saves epochs from the second trial on.
    """
    tried = search.ranges["epochs"].ends if "epochs" in search.ranges else []
    most = max([search.params.variants[search.variant].epochs, *map(int, tried)])
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=most // 9 + 1, reduction_factor=3)


def left(study: optuna.Study, search: Search) -> int:
    """How many trials are not finished."""
    ended = study.get_trials(deepcopy=False, states=ENDED)
    return max(search.trials - len(ended), len(running(study)))


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run, or that a process which was killed ran."""
    return study.get_trials(deepcopy=False, states=[TrialState.RUNNING])


def trials_left(study: optuna.Study, search: Search) -> Iterator[Trial]:
    """The trials that are left, each with its settings: those that were interrupted, then new ones.

    A sampler that is made again draws the same numbers again, so each trial has one with a seed of its own.
    """
    interrupted = running(study)
    while interrupted or (number := len(study.get_trials(deepcopy=False, states=BEGUN))) < search.trials:
        old = interrupted.pop(0) if interrupted else None
        drawn_from = digest_of([search.seed, old.number if old else number])
        study.sampler = SAMPLERS[search.sampler](seed=int(drawn_from[:8], 16))
        trial = Trial(study, old._trial_id) if old else study.ask()
        for key, values in search.ranges.items():
            values.suggest(trial, key)
        yield trial
