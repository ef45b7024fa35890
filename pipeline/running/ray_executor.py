"""Runs jobs on a Ray cluster (docs/cluster.md)."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import params
from pipeline.running import ray_task, worker
from pipeline.running.complete_run import complete_run
from pipeline.running.job import Job, WorkerDied
from pipeline.running.ray_connection import GIB, check_room, connect
from pipeline.support import job_results, origin
from pipeline.support.errors import in_a_line, one_line
from pipeline.support.locks import locked
from pipeline.support.paths import CHECKPOINTS

ROOM = ("num_cpus", "num_gpus", "memory")
Message = tuple[str, bytes | None]  # a line that a job printed; after an epoch with its checkpoint


class Cluster:
    """The Ray cluster at RAY_ADDRESS, or a new one of this machine alone.

    Ray queues jobs that it has no room for. Nodes need the installed environment and nothing else: the code,
    the prepared data and what a job begins with come from here. Checkpoints come back after each epoch,
    results at the end.
    """

    def __init__(self, needs: params.Cluster, jobs: Sequence[Job], slots: int | None = None) -> None:
        connect()
        rooms = {tuple(options(job, needs)[key] for key in ROOM) for job in jobs}
        self.slots = slots or max(len(jobs), *(check_room(*room) for room in rooms))
        self.needs = needs
        self.work = ray.remote(ray_task.work)
        self.origin = origin.origin()
        self.settings = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
        self.digest, self.data = ray_task.share_data()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.inbox = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self.running: dict[str, tuple[Any, SimpleQueue[Message | None]]] = {}
        self.completing = threading.Lock()
        self.stopped = False
        self.receiver = threading.Thread(target=self._receive, daemon=True)
        self.receiver.start()

    def run(self, job: Job, show: Callable[[str], None]) -> bool:
        """Do a job on a node, and fetch its results (see `Executor`)."""
        with locked(f"train-{job.files.name}"):
            if self.stopped:
                raise CancelledError
            succeeded, packed, tracked = self._run(job, show)
            job_results.unpack(packed)
            if succeeded and job.trains and job.tracks and not tracked:
                with self.completing:
                    if worker.run(partial(complete_run, job.result()), show):
                        show("its run is missing: `make sync` logs it")
        return succeeded

    def stop(self) -> None:
        """Interrupt what runs, and leave the cluster."""
        self.stopped = True
        running = list(self.running.values())
        for task, _ in running:
            ray.cancel(task)
        if running:
            tasks = [task for task, _ in running]
            ray.wait(tasks, num_returns=len(tasks), timeout=worker.SECONDS_TO_STOP)
        for _, messages in running:
            messages.put(None)
        self.inbox.put(None)
        self.receiver.join()
        ray.shutdown()
        worker.stop()

    def _run(self, job: Job, show: Callable[[str], None]) -> tuple[bool, bytes, bool]:
        """What `ray_task.work` returns on a node; meanwhile show what it prints, and keep its checkpoints."""
        name, messages = job.files.name, SimpleQueue[Message | None]()
        sent = replace(job, origin=self.origin)
        work = self.work.options(**options(job, self.needs))
        task = work.remote(sent, self.digest, self.data, begins_with(job), self.settings, self.inbox)
        self.running[name] = task, messages
        task.future().add_done_callback(lambda _: messages.put(None))
        try:
            for line, checkpoint in iter(messages.get, None):
                if checkpoint:
                    keep(name, checkpoint)
                show(line)
            return ray.get(task)
        except ray.exceptions.TaskCancelledError as error:
            raise CancelledError from error
        except ray.exceptions.RayTaskError as error:  # a full disk, say: not a failure of the training
            raise WorkerDied(one_line(error.cause) or repr(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise WorkerDied(in_a_line(str(error).partition("\n")[0])) from error
        finally:
            del self.running[name]
            ray.cancel(task)  # in case `show` raised an exception; a task that has ended stays as it is
            ray.wait([task], timeout=worker.SECONDS_TO_STOP)

    def _receive(self) -> None:
        """Sort the messages of the nodes by their jobs."""
        while message := self.inbox.get():
            name, *content = message
            with suppress(KeyError):  # a job that has just ended
                self.running[name][1].put(tuple(content))


def keep(name: str, checkpoint: bytes) -> None:
    """Replace a training's checkpoint, all or nothing, unless the disk is full."""
    partial = CHECKPOINTS / f"{name}.partial"
    with suppress(OSError):
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(checkpoint)
        partial.replace(CHECKPOINTS / f"{name}.npz")


def options(job: Job, needs: params.Cluster) -> dict[str, Any]:
    """What Ray gives to a job. Ray's own retries are off, since they would not send the last checkpoint."""
    recipe = job.recipe
    on_gpu = recipe.device == "gpu"
    # TensorFlow sets its threads once, so a worker only gets jobs with the same environment.
    environment = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(recipe.threads))
    if not on_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return {
        "name": job.files.name,
        "num_cpus": needs.cpus or recipe.threads,
        "num_gpus": on_gpu if needs.gpus is None else needs.gpus,
        "memory": int(needs.memory * GIB),
        "max_retries": 0,
        "runtime_env": {"env_vars": environment},
    }


def begins_with(job: Job) -> ray_task.Files:
    """The files of this folder that a job begins with: a model, a checkpoint."""
    paths = [job.start, job.files.checkpoint] if job.trains else [job.files.model]
    return {path.as_posix(): path.read_bytes() for path in paths if path and path.is_file()}
