"""Before a long run: what will run, for how long, and whether the disk has room for it.

    python -m pipeline.plan

Reads params.yaml, DVC's own graph and status, and the wall times of earlier runs in MLflow's store.
Ends with exit status 1 where the disk is too small.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import mlflow
import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from rich.console import Console

from pipeline.errors import PipelineError, in_a_line, one_line_errors
from pipeline.params import Params
from pipeline.records import store
from pipeline.settings.reading import read_params

# Bytes that a stage leaves in the workspace, DVC's cache and MLflow's store, as measured on CIFAR-10.
GIB = 2**30
DISK = {"fetch": 0.6 * GIB, "prepare": 0.4 * GIB, "train": 0.08 * GIB, "finetune": 0.08 * GIB}
DISK_OF_OTHERS = 0.02 * GIB


@one_line_errors
def main() -> None:
    """Print the plan, and refuse where the disk is too small."""
    params = read_params(Params)
    params.training.check_versions()
    stages = stages_to_run()
    tell(stages, seconds_of_trainings(stages, params.data.dataset))


def tell(stages: "nx.DiGraph[str]", seconds: dict[str, float | None]) -> None:
    """Print the stages with the trainings' seconds; PipelineError where the disk is too small for them."""
    console = Console(highlight=False, soft_wrap=True)
    if not stages:
        console.print("plan: nothing to run: everything is up to date")
        return
    for stage in stages:
        told = f"  about {in_words(seconds[stage])}" if seconds.get(stage) else ""
        console.print(f"plan: {stage}{told}")
    unknown = sum(1 for value in seconds.values() if value is None)
    total = in_words(sum(value for value in seconds.values() if value is not None))
    console.print(
        f"plan: {len(stages)} stages, {len(seconds)} of them trainings: {total} by earlier runs"
        + (f", and {unknown} trainings that have none yet" if unknown else "")
    )
    check_disk(stages)


def stages_to_run() -> "nx.DiGraph[str]":
    """DVC's graph of the stages that are out of date or follow from one that is, in `dvc repro`'s order.

    An edge goes from a stage to one that it depends on. PipelineError where DVC cannot tell: another DVC
    is at work here, or dvc.yaml is not as it should be.
    """
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
    """The wall seconds that each training among the stages took in earlier runs, None where it has none.

    Where there is anything to run this opens MLflow's store, and so makes it before several stages do.
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
    """Print what the stages need and what is free; PipelineError where that is not enough."""
    needed = sum(DISK.get(stage.split("@")[0], DISK_OF_OTHERS) for stage in stages)
    free = shutil.disk_usage(Path.cwd()).free
    if free < needed:
        raise PipelineError(
            f"{Path.cwd()}: {free / GIB:.1f} GiB are free, this run needs {needed / GIB:.1f}: "
            "`make clean` says what could be freed"
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
