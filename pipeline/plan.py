"""Print what `dvc repro` would run, how long that takes, and whether the disk has room for it.

    python -m pipeline.plan

Brings `recipes` up to date first, since recipes decide which trainings run. Reads params.yaml, DVC's graph,
status and run cache, and the wall times of earlier runs in MLflow's store.
Exits with status 1 if the disk is too small.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import mlflow
from rich.console import Console

from pipeline.learning.recipe import Recipe
from pipeline.params import Params
from pipeline.records import store
from pipeline.running.ahead import Job
from pipeline.shared.errors import PipelineError, in_a_line, one_line_errors
from pipeline.shared.load_params import load_params
from pipeline.shared.trained import Trained, all_trained

if TYPE_CHECKING:
    from dvc.repo import Repo

# Bytes that a stage writes to the workspace, DVC's cache and MLflow's store, as measured on CIFAR-10.
GIB = 2**30
DISK = {"fetch": 0.6 * GIB, "prepare": 0.4 * GIB, "train": 0.08 * GIB, "finetune": 0.08 * GIB}
DISK_OF_OTHERS = 0.02 * GIB

Stages = dict[str, bool]  # the stages that `dvc repro` would run, in order; whether it restores their outs


@one_line_errors
def main() -> None:
    """Print the plan, and fail if the disk is too small."""
    params = load_params(Params)
    params.training.check_versions()
    stages = stages_to_run()
    show(stages, jobs_ahead(stages, params.data.dataset))


def show(stages: Stages, jobs: list[Job]) -> None:
    """Print the stages and how long trainings take; PipelineError if the disk is too small for them."""
    console = Console(highlight=False, soft_wrap=True)
    if not stages:
        console.print("plan: nothing to run: everything is up to date")
        return
    trainings = {job.stages[0]: job.seconds for job in jobs if job.trains}
    for stage, restored in stages.items():
        time = f"  about {in_words(trainings[stage])}" if trainings.get(stage) else ""
        console.print(f"plan: {stage}{'  from the cache' if restored else time}")
    unknown = sum(1 for value in trainings.values() if value is None)
    total = in_words(sum(value for value in trainings.values() if value is not None))
    console.print(
        f"plan: {len(stages)} stages, {len(trainings)} of them trainings: {total} by earlier runs"
        + (f", and {unknown} trainings that have none yet" if unknown else "")
    )
    check_disk(stages)


def stages_to_run() -> Stages:
    """The stages that `dvc repro` would run, after bringing `recipes` up to date.

    Raises PipelineError if a stage up to `recipes` fails, another DVC runs here, or dvc.yaml is invalid.
    """
    stages = outdated_stages()
    if "recipes" not in stages:
        return stages
    if subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "recipes"]).returncode:
        raise PipelineError("a stage before the trainings failed, as printed above")
    return outdated_stages()


def outdated_stages() -> Stages:
    """The stages that are out of date or depend on one that is, in DVC's order."""
    import networkx as nx  # as DVC, more than half a second, which each worker would spend again
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            changed = set(repo.status())
            stages = {stage.addressing: stage for stage in nx.dfs_postorder_nodes(repo.index.graph)}
            graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
            following = changed.union(*(nx.ancestors(graph, name) for name in changed))
            return {name: is_cached(repo, stage) for name, stage in stages.items() if name in following}
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error


def is_cached(repo: "Repo", stage: Any) -> bool:
    """Whether DVC has the outs that a stage would make of its dependencies as they are now."""
    if not stage.deps or not all(dep.exists for dep in stage.deps):
        return False
    stage.save_deps()
    cache = repo.stage_cache._load(stage)
    return bool(cache and repo.stage_cache._create_stage(cache, wdir=stage.wdir).outs_cached())


def jobs_ahead(stages: Stages, experiment: str) -> list[Job]:
    """The trainings and predictions to do before `dvc repro`: those that it would not restore itself.

    What follows a restored training is left to `dvc repro`, too.
    """
    known = earlier_wall_seconds(experiment) if stages else {}
    jobs: list[Job] = []
    restored: set[Trained | None] = set()
    for trained in all_trained():
        job = Job(trained, Recipe.read(trained.variant), seconds=known.get(trained.variant))
        training, prediction = (stages.get(stage) for stage in job.stages)
        job = replace(job, trains=training is False, predicts=prediction is False)
        if training or job.base in restored:
            restored.add(trained)
        elif job.trains or job.predicts:
            jobs.append(job)
    return jobs


def earlier_wall_seconds(experiment: str) -> dict[str, float]:
    """The median wall time of each variant's finished trainings in the store, in seconds.

    Opens MLflow's store, so it is created before several workers need it.
    """
    store.check()
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        return {}
    runs = mlflow.MlflowClient().search_runs(
        [found.experiment_id], "attributes.status = 'FINISHED' and metrics.wall_seconds > 0", max_results=1000
    )
    times: dict[str, list[float]] = {}
    for run in runs:
        times.setdefault(run.data.tags.get("variant", ""), []).append(run.data.metrics["wall_seconds"])
    return {variant: median(values) for variant, values in times.items()}


def check_disk(stages: Iterable[str]) -> None:
    """Print the disk space that the stages need and that is free; PipelineError if it is not enough."""
    needed = sum(DISK.get(stage.split("@")[0], DISK_OF_OTHERS) for stage in stages)
    free = shutil.disk_usage(Path.cwd()).free
    if free < needed:
        raise PipelineError(
            f"{Path.cwd()}: {free / GIB:.1f} GiB are free, this run needs {needed / GIB:.1f}: "
            "`make clean` lists what can be deleted"
        )
    print(f"plan: needs {needed / GIB:.1f} GiB of disk, {free / GIB:.1f} are free")


def in_words(seconds: float | None) -> str:
    """Seconds as hours and minutes."""
    minutes = round((seconds or 0) / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    main()
