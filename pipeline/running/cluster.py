"""Runs jobs on a Ray cluster (docs/cluster.md)."""

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tenacity import Retrying, stop_after_attempt

from pipeline import params
from pipeline.records import store, tracking
from pipeline.running import node, worker
from pipeline.running.ahead import WorkerDied
from pipeline.running.job import Job
from pipeline.shared import results
from pipeline.shared.arrays import digest_of, file_digest, read_facts
from pipeline.shared.errors import PipelineError, in_a_line
from pipeline.shared.lock import locked
from pipeline.shared.paths import CHECKPOINTS, PARAMS, PREPARED
from pipeline.shared.trained import Trained

GIB = 1024**3
PACKAGE = Path(params.__file__).parent
SECONDS_TO_ANSWER = 10
STARTS = 3  # of a Ray of this machine, which gives itself 15 seconds (2.60), too little if it is busy
SECONDS_TO_STOP = 30  # a training answers after some steps of an epoch, then closes its run in MLflow


class Cluster:
    """The Ray cluster at RAY_ADDRESS, or a new one of this machine alone; it queues what it has no room for.

    Nodes need the installed environment and nothing else: the code, the prepared data and what a job begins
    with come from here. Checkpoints come back after each epoch, results at the end.
    """

    def __init__(self, needs: params.Cluster, jobs: Sequence[Job], slots: int | None = None) -> None:
        connect()
        check_room(jobs, needs)
        self.needs = needs
        self.work = ray.remote(node.work)
        self.slots = slots or max(1, len(jobs))
        self.origin = tracking.origin()
        self.experiment = read_facts(PREPARED / "split")["name"]
        self.settings = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
        self.digest, self.data = share_data()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.inbox = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self.shows: dict[str, Callable[[str], None]] = {}
        self.running: dict[str, Any] = {}
        self.completing = threading.Lock()
        self.receiver = threading.Thread(target=self._receive, daemon=True)
        self.receiver.start()

    def run(self, job: Job, show: Callable[[str], None]) -> bool:
        """Do a job on a node, and take its results."""
        name = job.trained.name
        with locked(f"train-{name}"):
            self.shows[name] = show
            task = self.work.options(**options(job, self.needs))
            sent = replace(job, origin=self.origin)
            self.running[name] = task.remote(
                sent, self.digest, self.data, begins_with(job), self.settings, self.inbox
            )
            try:
                succeeded, files, tracked = ray.get(self.running[name])
            except ray.exceptions.TaskCancelledError:
                return False
            except ray.exceptions.RayError as error:
                raise WorkerDied(in_a_line(str(error).partition("\n")[0])) from error
            finally:
                del self.running[name], self.shows[name]
            results.unpack(files)
            if succeeded and job.trains and not tracked:
                with self.completing:
                    worker.run(partial(complete, job.result(), self.experiment), show)
        return succeeded

    def stop(self) -> None:
        """Interrupt what runs, and leave the cluster."""
        left = list(self.running.values())
        for task in left:
            ray.cancel(task)
        if left:
            ray.wait(left, num_returns=len(left), timeout=SECONDS_TO_STOP)
        self.inbox.put(None)
        self.receiver.join()
        leave()

    def _receive(self) -> None:
        """Show what jobs print, and keep their checkpoints."""
        while message := self.inbox.get():
            name, line, checkpoint = message
            if checkpoint:
                CHECKPOINTS.mkdir(parents=True, exist_ok=True)
                incomplete = CHECKPOINTS / f"{name}.partial"
                incomplete.write_bytes(checkpoint)
                incomplete.replace(CHECKPOINTS / f"{name}.npz")
            if show := self.shows.get(name):
                show(line)


def connect() -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine. Raises PipelineError if none answers."""
    address = os.environ.get("RAY_ADDRESS", "local")
    allowed = "the HOST:PORT of a cluster that this machine has joined with `ray start` is allowed"
    host, _, port = address.rpartition(":")
    if address != "local" and not (port.isdecimal() and re.fullmatch(r"[\w.\-\[\]:]+", host)):
        raise PipelineError(f"RAY_ADDRESS: {allowed}; received {address!r}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send to its makers
    try:
        if host:  # since Ray would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        for attempt in Retrying(stop=stop_after_attempt(1 if host else STARTS), reraise=True):
            with attempt:
                ray.shutdown()
                ray.init(
                    address,
                    runtime_env={"py_modules": [str(PACKAGE)]},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
    except Exception as error:  # Ray raises almost anything
        raise PipelineError(f"RAY_ADDRESS: no answer from {address}: {in_a_line(error)}") from error


def leave() -> None:
    """Leave the cluster."""
    ray.shutdown()


def share_data() -> tuple[str, node.Data]:
    """Put the prepared data into Ray's object store; their digest, and where they are."""
    files = sorted(path for path in PREPARED.glob("*/*") if path.is_file())
    content = {path.relative_to(PREPARED).as_posix(): np.fromfile(path, np.uint8) for path in files}
    return digest_of({str(path): file_digest(path) for path in files}), [ray.put(content)]


def options(job: Job, needs: params.Cluster) -> dict[str, Any]:
    """What Ray gives to a job. Ray's own retries are off, since they would not send the last checkpoint."""
    recipe = job.recipe
    on_gpu = recipe.device == "gpu"
    # TensorFlow sets its threads once, so a worker only gets jobs with the same environment.
    within, between = (1, recipe.threads) if recipe.share_batches else (recipe.threads, 1)
    environment = {"TF_NUM_INTRAOP_THREADS": str(within), "TF_NUM_INTEROP_THREADS": str(between)}
    if not on_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return {
        "name": job.trained.name,
        "num_cpus": needs.cpus or recipe.threads,
        "num_gpus": on_gpu if needs.gpus is None else needs.gpus,
        "memory": int(needs.memory * GIB),
        "max_retries": 0,
        "runtime_env": {"env_vars": environment},
    }


def check_room(jobs: Sequence[Job], needs: params.Cluster) -> None:
    """Raise PipelineError if no node could ever take one of the jobs, for which Ray would wait for ever."""
    nodes = [made["Resources"] for made in ray.nodes() if made["Alive"]]
    asked_by = [options(job, needs) for job in jobs]
    for key, name, unit in (("num_cpus", "CPU", 1), ("num_gpus", "GPU", 1), ("memory", "memory", GIB)):
        asked = max((asked[key] for asked in asked_by), default=0) / unit
        largest = max(resources.get(name, 0) for resources in nodes) / unit
        if asked > largest:
            where = f"{PARAMS}: cluster.{key.removeprefix('num_')}"
            has = f"what the largest of {len(nodes)} nodes has"
            raise PipelineError(f"{where}: at most {largest:.4g} is allowed, {has}; received {asked:.4g}")


def begins_with(job: Job) -> node.Files:
    """The files of this folder that a job begins with: a model, a checkpoint."""
    paths = [job.start, job.trained.checkpoint] if job.trains else [job.trained.model]
    return {path.as_posix(): path.read_bytes() for path in paths if path and path.is_file()}


def complete(trained: Trained, experiment: str) -> None:
    """Log a training that could not be logged on its node."""
    from pipeline.records.recording import complete_run  # TensorFlow

    store.check()
    complete_run(trained, experiment)
