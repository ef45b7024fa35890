"""The Optuna study of a search: where it is stored, what proposes settings, and what stops trials."""

import threading
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.commands.search.ranges import Ranges, Scalar, present
from pipeline.core.arrays import read_facts
from pipeline.core.result_keys import code_digest
from pipeline.params import Params
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.paths import PREPARED, SEARCHES

SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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

    def tags(self) -> dict[str, str]:
        """All that decides the trials, but not how many there are, so more of them continue the search."""
        content = {
            "ranges": {key: values.model_dump() for key, values in self.ranges.items()},
            "block": self.params.variants[self.variant].model_dump(),
            "training": self.params.training.model_dump(),
            "training_seed": self.params.seeds[0],
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
    file = SEARCHES / f"{search.variant}.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{file.absolute()}",
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


class Proposals:
    """Gives settings to the trials that are left, the interrupted ones first. Threads may share it."""

    def __init__(self, study: optuna.Study, search: Search) -> None:
        self.study, self.search = study, search
        self.lock = threading.Lock()
        self.interrupted = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    @property
    def begun(self) -> int:
        """How many trials have settings."""
        return len(self.study.get_trials(deepcopy=False, states=BEGUN))

    @property
    def left(self) -> bool:
        """Whether any trials are left."""
        return bool(self.interrupted) or self.begun < self.search.trials

    def next(self) -> tuple[Trial, dict[str, Scalar]] | None:
        """The next trial and its settings; None if there are no more."""
        with self.lock:
            if not self.left:
                return None
            interrupted: FrozenTrial | None = self.interrupted.pop(0) if self.interrupted else None
            # A sampler draws the same numbers again when it is made again, so each trial has its own.
            number = self.begun if interrupted is None else interrupted.number
            drawn_from = int(digest_of([self.search.seed, number])[:8], 16)
            self.study.sampler = SAMPLERS[self.search.sampler](seed=drawn_from)
            trial = self.study.ask() if interrupted is None else Trial(self.study, interrupted._trial_id)
            return trial, {key: values.suggest(trial, key) for key, values in self.search.ranges.items()}
