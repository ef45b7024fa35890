"""Runs the trials of a search: for each seed a training, which is a job for an executor."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from math import inf
from statistics import fmean

import optuna
from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.commands.search.ranges import Scalar, with_values
from pipeline.commands.search.study import Search
from pipeline.commands.search.trial_runs import TrialRuns
from pipeline.core.arrays import read_arrays, read_facts
from pipeline.core.result_keys import code_digest
from pipeline.params import Finetune
from pipeline.running.job import Job, WorkerDied
from pipeline.running.job_queue import Executor, attempt
from pipeline.running.view import Epoch, View
from pipeline.shared.selection import LOSSES, merit
from pipeline.support import job_results
from pipeline.support.digests import digest_of
from pipeline.support.errors import PipelineError
from pipeline.support.model_files import ACCURACY, ModelFiles
from pipeline.support.paths import PREPARED


class Trainings:
    """Makes the jobs of a search. Threads may share it."""

    def __init__(self, search: Search) -> None:
        from pipeline.core.backend import tf

        tf.config.set_visible_devices([], "GPU")  # or building models here would take the jobs' memory
        self.search = search
        self.facts, self.code = read_facts(PREPARED / "split"), {"train": code_digest("train")}
        self.validation = read_arrays(PREPARED / "validation")
        self.lock = threading.Lock()

    def of(self, number: int, values: dict[str, Scalar]) -> list[Job]:
        """The trainings of a trial, one for each seed: the first of params.yaml and those that follow it.

        Raises PipelineError if the variant cannot be trained with these values.
        """
        from pipeline.stages.recipes import stage as recipes

        params, variant = self.search.params, self.search.variant
        block = with_values(params, variant, values)
        changed = params.model_copy(update={"variants": {variant: block}, "finetune": Finetune()})
        with self.lock:  # Keras builds one model at a time
            recipe = recipes.recipe(f"variants.{variant}", block, changed, self.facts)
        names = [
            ModelFiles(f"{variant}-trial-{number}", params.seeds[0] + n) for n in range(self.search.seeds)
        ]
        return [
            Job(files, recipe, self.code, predicts=False, start=recipe.start, tracks=False) for files in names
        ]

    def merit(self, files: ModelFiles) -> float:
        """The metric of the weights that a training kept, on validation images; of a loss, minus that.

        Of a training that diverged the worst: no image is right, or the loss is infinite.
        """
        record, metric = files.record(), self.search.metric
        if record.divergence is not None:
            return -inf if metric in LOSSES else 0.0
        if metric == "accuracy":
            return float(record.metrics[ACCURACY])
        from pipeline.core import keras_file, prediction
        from pipeline.shared.metrics import METRICS

        with self.lock:
            images, labels = (self.validation[name] for name in ("images", "labels"))
            predicted = prediction.probabilities(keras_file.load(files.model), images)
            return merit(metric, METRICS[metric](labels, predicted))


@dataclass(frozen=True)
class Trials:
    """Runs the trials of a study, as many at a time as the executor has slots."""

    study: optuna.Study
    trainings: Trainings
    executor: Executor
    runs: TrialRuns
    view: View

    def run(self, trials: Iterator[Trial]) -> None:
        """Run them all; a trial gets its settings when there is a slot for it."""
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self.executor.slots) as threads:
            try:
                while True:
                    free = self.executor.slots - len(running)
                    running |= {threads.submit(self._run, trial) for trial in islice(trials, free)}
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for ended in done:
                        ended.result()
            finally:
                self.executor.stop()

    def _run(self, trial: Trial) -> None:
        """Run a trial, and tell the study how it ended."""
        self.runs.log(self._stored(trial))
        jobs: list[Job] = []
        value, state = None, TrialState.COMPLETE
        try:
            jobs += self.trainings.of(trial.number, trial.params)
            value = fmean(self._merit(trial, job, prunes=job is jobs[0]) for job in jobs)
        except TrialPruned:
            state = TrialState.PRUNED
        except (PipelineError, WorkerDied) as error:
            state = TrialState.FAIL
            trial.set_user_attr("reason", str(error))
        ended = self.study.tell(trial, value, state)
        for job in jobs:
            shutil.rmtree(job.result().folder, ignore_errors=True)
            job.files.checkpoint.unlink(missing_ok=True)
        self.runs.log(ended)
        self.view.show(described(ended, self.trainings.search.metric))
        self.view.advance(self.view.total)

    def _merit(self, trial: Trial, job: Job, prunes: bool) -> float:
        """What the weights are worth that a training keeps: see `Trainings.merit`.

        Raises TrialPruned, if it `prunes`, PipelineError if the training fails, and WorkerDied.
        """
        spent, before = trial.user_attrs.get("cpu_seconds", 0.0), 0.0

        def show(line: str) -> None:
            nonlocal spent, before
            if "  epoch " not in line:
                bar(line)
            epoch = Epoch.of(line)
            if epoch and epoch.number == 0:  # the process may have done other jobs before
                before = epoch.cpu_seconds - spent
            elif epoch:
                spent = epoch.cpu_seconds - before
                trial.set_user_attr("cpu_seconds", spent)
                if prunes:
                    trial.report(epoch.accuracy, epoch.number)
                    self.runs.log(self._stored(trial))
                    if trial.should_prune():
                        raise TrialPruned

        with self.view.bar(job.files.name) as bar:
            if not attempt(job, self.executor, bar, show):
                raise PipelineError(job_results.failure(digest_of(job.tags())) or "its training failed")
        files = job.result()
        if prunes:
            for number, accuracy in enumerate(files.epochs()["val_accuracy"], 1):
                trial.report(accuracy, number)  # if its line was lost with a process
        return self.trainings.merit(files)

    def _stored(self, trial: Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]


def described(trial: FrozenTrial, metric: str) -> str:
    """A trial's settings and how it ended, in a line."""
    values = {k: f"{value:.3g}" if isinstance(value, float) else value for k, value in trial.params.items()}
    ending = f"{merit(metric, trial.value or 0):.4f}"
    if trial.state == TrialState.PRUNED:
        ending += f", stopped after epoch {trial.last_step}"
    if trial.state == TrialState.FAIL:
        ending = f"failed: {trial.user_attrs['reason']}"
    return f"trial {trial.number}: {', '.join(f'{key} {value}' for key, value in values.items())}: {ending}"
