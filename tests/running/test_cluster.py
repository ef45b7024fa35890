"""`make repro EXECUTOR=ray`: trainings on the nodes of a cluster, and what happens if some of them die.

Each node has a folder of its own, and shares nothing with the others but the machine.
"""

import json
import os
import signal
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import yaml

from pipeline.commands import quickstart
from tests import projects
from tests.conftest import ROOT, Clone
from tests.processes import output_of, wait_for
from tests.projects import Project
from tests.ray_nodes import Nodes
from tests.servers import mlflow_server

pytestmark = pytest.mark.system  # Ray, which `make cluster` installs

REPRO = ("python", "-m", "pipeline", "repro", "--executor=ray")
SHALLOW = yaml.safe_load(quickstart.PARAMS.read_text())["variants"]["shallow"]


def job_of(clone: Clone, nodes: Nodes, folder: Path, seeds: int, **variants: int) -> Project:
    """A job before its trainings: the quickstart's `shallow` with each of these numbers of epochs."""
    content = projects.small_params() | {"seeds": [*range(seeds)], "cluster": {"memory": 0.5}}
    content["variants"] = {name: SHALLOW | {"epochs": epochs} for name, epochs in variants.items()}
    return Project(projects.before_training(clone, folder, content).folder, {"RAY_ADDRESS": nodes.address})


def names(job: Project) -> Counter[str]:
    """How many runs have each name; all are finished."""
    assert {run.info.status for run in job.runs()} == {"FINISHED"}
    return Counter(str(run.info.run_name) for run in job.runs())


def begun_besides(job: Project, others: list[str]) -> set[str]:
    """The long trainings with a checkpoint that are none of the others."""
    return {path.stem for path in job.folder.glob(".pipeline/checkpoints/long-*.npz")} - {*others}


def test_the_driver_imports_no_tensorflow(tmp_path: Path) -> None:
    imported = "sys, pipeline.commands.repro, pipeline.running.ray_executor"
    code = f"import {imported}; print('tensorflow' in sys.modules)"
    assert Project(tmp_path).run("python", "-c", code, PYTHONPATH=str(ROOT)) == "False\n"


ALONE = """
import psutil
from pipeline.running import ray_connection
ray_connection.connect()
here = psutil.Process()
sockets = [found for one in [here, *here.children(recursive=True)] for found in one.net_connections()]
print(*sorted({found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN}))
"""


def test_ray_alone_listens_on_this_machine_and_only_its_user_reads_its_token(tmp_path: Path) -> None:
    for _ in range(2):  # Ray opens its folder to everyone
        printed = Project(tmp_path).run("python", "-c", ALONE, PYTHONPATH=str(ROOT), HOME=str(tmp_path))
        assert printed == "127.0.0.1 ::ffff:127.0.0.1\n"
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o077 == 0


def test_nodes_train_what_this_machine_trains_and_the_driver_logs_what_they_cannot(
    clone: Clone, nodes: Nodes, tmp_path: Path
) -> None:
    """Bit for bit. MLflow's store is a file, which no node reaches."""
    nodes.add(num_cpus=2)
    job = job_of(clone, nodes, tmp_path / "job", 2, shallow=SHALLOW["epochs"])
    assert "shallow-1: done after" in job.run(*REPRO)
    quick = Project(clone.folder / "quickstart").outs()
    same = ["models/shallow-0", "predictions/shallow-0"]
    assert [job.outs()[out] for out in same] == [quick[out] for out in same]
    assert names(job) == {"shallow-0": 1, "shallow-1": 1, "report": 1}
    assert not list(tmp_path.glob("node*/pipeline-shallow-*"))


@pytest.mark.cluster
def test_forty_trainings_finish_once_each_though_two_of_four_nodes_die(
    clone: Clone, nodes: Nodes, tmp_path: Path
) -> None:
    for _ in range(4):
        nodes.add(num_cpus=1)
    job = job_of(clone, nodes, tmp_path / "job", 10, long=40, a=2, b=2, c=2)
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as address:
        job = Project(job.folder, job.more | {"MLFLOW_TRACKING_URI": address})
        process = job.start(*REPRO)
        lost: list[str] = []
        while len(lost) < 2:
            begun = wait_for(partial(begun_besides, job, lost), process=process)
            lost += islice((name for name in begun if nodes.lose(name)), 1)  # lazily: one node at a time
        printed = output_of(process)
        assert process.returncode == 0, printed
        for name in lost:
            assert f"{name}: died" in printed
            assert f"{name}: {name.partition('-')[0]}: resuming after epoch" in printed
        trained = {f"{variant}-{seed}" for variant in ("a", "b", "c", "long") for seed in range(10)}
        assert names(job) == Counter({*trained, "report"})
        (run,) = [run for run in job.runs() if run.info.run_name == lost[0]]
        assert job.steps(run) == [*range(40)]
    assert {out for out in job.outs() if out.startswith("models/")} == {f"models/{name}" for name in trained}


@pytest.mark.faults
def test_a_killed_driver_picks_up_what_finished_and_resumes_what_ran(
    clone: Clone, nodes: Nodes, tmp_path: Path
) -> None:
    nodes.add(num_cpus=2)
    job = job_of(clone, nodes, tmp_path / "job", 1, short=1, long=60)
    process = job.start(*REPRO)
    wait_for(lambda: "short" in job.results(), process=process)
    wait_for((job.folder / ".pipeline/checkpoints/long-0.npz").is_file, process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    printed = job.run(*REPRO)
    assert "short  epoch" not in printed
    assert "long: resuming after epoch" in printed
    assert names(job) == {"short-0": 1, "long-0": 1, "report": 1}


def test_a_training_that_no_node_has_room_for_is_refused_in_one_line(
    clone: Clone, nodes: Nodes, tmp_path: Path
) -> None:
    job = job_of(clone, nodes, tmp_path / "job", 1, shallow=1)
    changed = yaml.safe_load((job.folder / "params.yaml").read_text()) | {"cluster": {"memory": 64}}
    (job.folder / "params.yaml").write_text(json.dumps(changed))
    nodes.add(num_cpus=1)
    printed = job.run(*REPRO, check=False)
    has = "0 CPUs, 0 GPUs, 3 GiB; 1 CPUs, 0 GPUs, 3 GiB"
    line = f"no node has 1 CPUs, 0 GPUs, 64 GiB; the nodes have: {has}"
    assert printed.splitlines()[-1] == f"error: params.yaml: cluster: {line}"


def test_an_address_without_a_cluster_is_refused_in_one_line(clone: Clone, tmp_path: Path) -> None:
    job = projects.before_training(clone, tmp_path / "job", projects.small_params(shallow={}))
    for address, problem in {
        "127.0.0.1:1": "no answer from 127.0.0.1:1",
        "ray://head:10001": "must be the HOST:PORT of a cluster",
    }.items():
        line = job.run(*REPRO, check=False, RAY_ADDRESS=address).splitlines()[-1]
        assert line.startswith(f"error: RAY_ADDRESS: {problem}")


GPU_JOBS = """
import io, sys
from pathlib import Path
from rich.console import Console
from pipeline import params
from pipeline.running import job_queue
from pipeline.running.ray_executor import Cluster
from pipeline.running.view import View
from pipeline.support.model_files import ModelFiles
from tests.keras_models import recipe
from tests.running.gpu_job import OnGpu

work = [OnGpu(ModelFiles("one", n), recipe(device="gpu"), {"folder": sys.argv[1]}) for n in range(5)]
with View(Console(file=io.StringIO()), len(work)) as shown:
    job_queue.run(work, Cluster(params.Cluster(memory=0.5), work), shown)
"""


def test_each_training_has_a_gpu_of_its_node_to_itself(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add(num_cpus=4, num_gpus=2)
    job = projects.prepared(tmp_path / "job", projects.small_params(shallow={}), RAY_ADDRESS=nodes.address)
    (held := tmp_path / "held").mkdir()
    job.run("python", "-c", GPU_JOBS, str(held))
    done = [path.name.split(" on ") for path in held.glob("* on *")]
    assert sorted(name for name, _ in done) == [f"one-{n}" for n in range(5)]
    assert {gpu for _, gpu in done} == {"0", "1"}
