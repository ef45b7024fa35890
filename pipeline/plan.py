"""Print what `dvc repro` would run, how long that takes, and whether the disk has room for it.

    python -m pipeline.plan

Brings `recipes` up to date first, since recipes decide which trainings run. Reads params.yaml, DVC's graph
and status, and the wall times of earlier runs in MLflow's store.
Exits with status 1 if the disk is too small.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import mlflow
import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from rich.console import Console

from pipeline.params import Params
from pipeline.records import store
from pipeline.shared.errors import PipelineError, in_a_line, one_line_errors
from pipeline.shared.load_params import load_params

# Bytes that a stage writes to the workspace, DVC's cache and MLflow's store, as measured on CIFAR-10.
GIB = 2**30
DISK = {"fetch": 0.6 * GIB, "prepare": 0.4 * GIB, "train": 0.08 * GIB, "finetune": 0.08 * GIB}
DISK_OF_OTHERS = 0.02 * GIB


@one_line_errors
def main() -> None:
    """Print the plan, and fail if the disk is too small."""
    params = load_params(Params)
    params.training.check_versions()
    stages = stages_to_run()
    show(stages, seconds_of_trainings(stages, params.data.dataset))


def show(stages: "nx.DiGraph[str]", seconds: dict[str, float | None]) -> None:
    """Print the stages and how long trainings take; PipelineError if the disk is too small for them."""
    console = Console(highlight=False, soft_wrap=True)
    if not stages:
        console.print("plan: nothing to run: everything is up to date")
        return
    for stage in stages:
        time = f"  about {in_words(seconds[stage])}" if seconds.get(stage) else ""
        console.print(f"plan: {stage}{time}")
    unknown = sum(1 for value in seconds.values() if value is None)
    total = in_words(sum(value for value in seconds.values() if value is not None))
    console.print(
        f"plan: {len(stages)} stages, {len(seconds)} of them trainings: {total} by earlier runs"
        + (f", and {unknown} trainings that have none yet" if unknown else "")
    )
    check_disk(stages)


def stages_to_run() -> "nx.DiGraph[str]":
    """The stages that `dvc repro` would run, in its order, after bringing `recipes` up to date.

    An edge goes from a stage to one that it depends on. Raises PipelineError if a stage up to `recipes`
    fails, another DVC is running here, or dvc.yaml is invalid.
    """
    stages = outdated_stages()
    if "recipes" not in stages:
        return stages
    if subprocess.run([sys.executable, "-m", "dvc", "repro", "recipes"]).returncode:
        raise PipelineError("a stage before the trainings failed, as printed above")
    return outdated_stages()


def outdated_stages() -> "nx.DiGraph[str]":
    """DVC's graph, reduced to the stages that are out of date or depend on one that is."""
    try:
        with Repo() as repo:
            changed = set(repo.status())
            graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    except DvcException as error:
        raise PipelineError(f"dvc: {in_a_line(error)}") from error
    following = changed.union(*(nx.ancestors(graph, stage) for stage in changed))
    stages: nx.DiGraph[str] = nx.DiGraph()
    stages.add_nodes_from(stage for stage in nx.dfs_postorder_nodes(graph) if stage in following)
    stages.add_edges_from(graph.subgraph(following).edges)
    return stages


def seconds_of_trainings(stages: "nx.DiGraph[str]", experiment: str) -> dict[str, float | None]:
    """The wall seconds that each training among the stages took in earlier runs; None if it has none.

    Opens MLflow's store if anything is to run, so it is created before several stages need it.
    """
    known = earlier_wall_seconds(experiment) if stages else {}
    trainings = (stage for stage in stages if stage.startswith(("train@", "finetune@")))
    return {stage: known.get(variant_of(stage)) for stage in trainings}


def earlier_wall_seconds(experiment: str) -> dict[str, float]:
    """The median wall time of each variant's finished trainings in the store, in seconds."""
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


def variant_of(stage: str) -> str:
    """`shallow` of `train@shallow-0`."""
    return stage.split("@")[-1].rsplit("-", 1)[0]


def in_words(seconds: float | None) -> str:
    """Seconds as hours and minutes."""
    minutes = round((seconds or 0) / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    main()
