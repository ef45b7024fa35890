"""Print what `dvc repro` would run, and how long trainings took before.

    python -m pipeline plan

Brings `recipes` up to date first, since recipes decide which trainings run. Reads params.yaml, DVC's graph,
status and run cache, and the wall times of earlier runs in MLflow's store.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import mlflow
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

from pipeline.commands.check import checked_params
from pipeline.core.recipe import Recipe
from pipeline.core.result_keys import code_digests
from pipeline.params import Params
from pipeline.running import dvc_repro
from pipeline.running.job import Job
from pipeline.running.view import in_words
from pipeline.stages.fetch.folders import files_in
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError, in_a_line
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.words import count

if TYPE_CHECKING:
    from dvc.repo import Repo

Stages = dict[str, bool]  # the stages that `dvc repro` would run, in order; whether it restores their outs


@click.command()
def main() -> None:
    """Print the plan."""
    params = read_params()
    stages = after_recipes(outdated_stages())
    show(stages, jobs_ahead(stages, params.data.dataset, code_digests()))


def read_params() -> Params:
    """params.yaml, checked. Raises PipelineError also if a folder of images holds a pipe, on which DVC would
    wait for ever."""
    params = checked_params()
    for folder in params.data.folders.values():
        files_in(Path(folder))
    return params


def show(stages: Stages, jobs: list[Job]) -> None:
    """Print the stages, and how long trainings took before."""
    if not stages:
        print("plan: nothing to run: everything is up to date")
        return
    seconds = {job.stages[0]: job.seconds for job in jobs if job.trains}
    known = {stage: value for stage, value in seconds.items() if value}
    times = {stage: f"  about {in_words(value)}" for stage, value in known.items()}
    for stage, restored in stages.items():
        print(f"plan: {stage}{'  from the cache' if restored else times.get(stage, '')}")
    took = f"; {len(known)} of them took {in_words(sum(known.values()))} before" if known else ""
    print(f"plan: {count(len(stages), 'stage')}, with {count(len(seconds), 'training')}{took}")


def after_recipes(stages: Stages) -> Stages:
    """Bring `recipes` up to date. Returns the stages that are then out of date.

    Raises PipelineError if a stage up to `recipes` fails.
    """
    if "recipes" not in stages:
        return stages
    if not dvc_repro.run("recipes"):
        raise PipelineError("a stage before the trainings failed, as printed above")
    return outdated_stages()


def outdated_stages() -> Stages:
    """The stages that are out of date or depend on one that is, in DVC's order.

    Waits while another DVC uses their files. Raises PipelineError if dvc.yaml is invalid.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.scm import SCMError

    busy = retry_if_exception_type(LockError)
    try:
        return Retrying(retry=busy, wait=wait_fixed(1), before_sleep=_say_once)(_outdated_stages)
    except SCMError as error:  # a copy without git, such as an archive
        advice = "run `git init`, or `dvc config --local core.no_scm true`"
        raise PipelineError(f"dvc: {in_a_line(error)}: {advice}") from error
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error


def _outdated_stages() -> Stages:
    """The stages that are out of date. Raises LockError if another DVC uses their files."""
    import networkx as nx  # as DVC, more than half a second, which no worker needs
    from dvc.repo import Repo

    dvc_repro.forget_killed()
    with Repo(_wait_for_lock=True) as repo:
        changed = set(repo.status())
        graph = repo.index.graph
        outdated = {stage for stage in graph if stage.addressing in changed}
        outdated.update(*(nx.ancestors(graph, stage) for stage in outdated))
        ordered = [stage for stage in nx.dfs_postorder_nodes(graph) if stage in outdated]
        return {stage.addressing: is_cached(repo, stage) for stage in ordered}


def _say_once(state: RetryCallState) -> None:
    """Print what is waited for."""
    if state.attempt_number == 1 and state.outcome:
        print(f"plan: waiting for another DVC: {in_a_line(state.outcome.exception())}", flush=True)


def is_cached(repo: "Repo", stage: Any) -> bool:
    """Whether DVC has the outs that a stage would make of its dependencies as they are now."""
    if not stage.deps or not stage.outs or not all(dep.exists for dep in stage.deps):
        return False
    stage.save_deps()
    cache = repo.stage_cache._load(stage)
    return bool(cache and repo.stage_cache._create_stage(cache, wdir=stage.wdir).outs_cached())


def jobs_ahead(stages: Stages, experiment: str, code: dict[str, str]) -> list[Job]:
    """The trainings and predictions to do before `dvc repro`: those that it would not restore itself.

    `code` is the digest of each stage's modules, taken before workers import them.
    The prediction of a restored model, and its fine-tunings, are left to `dvc repro`, too.
    """
    known = earlier_wall_seconds(experiment) if stages else {}
    jobs: list[Job] = []
    restored: set[ModelFiles | None] = set()
    for files in all_models():
        job = Job(files, Recipe.read(files.variant), code, seconds=known.get(files.variant))
        training, prediction = (stages.get(stage) for stage in job.stages)
        job = replace(job, trains=training is False, predicts=prediction is False)
        if training or job.base in restored:
            restored.add(files)
        elif job.trains or job.predicts:
            jobs.append(job)
    return jobs


def earlier_wall_seconds(experiment: str) -> dict[str, float]:
    """The median wall time of each variant's finished trainings in the store, in seconds.

    Opens MLflow's store, so it is created before several workers need it. Raises PipelineError if the
    experiment was deleted, before a training starts.
    """
    mlflow_store.check()
    if mlflow_runs.experiment_called(experiment) is None:
        return {}
    query = "attributes.status = 'FINISHED' and metrics.wall_seconds > 0"
    runs = mlflow.search_runs(experiment_names=[experiment], filter_string=query, max_results=1000)
    return dict(runs.groupby("tags.variant")["metrics.wall_seconds"].median()) if len(runs) else {}
