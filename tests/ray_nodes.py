"""A Ray cluster on this machine, in a process of its own that reads what to do.

    python -m tests.ray_nodes FOLDER

Prints the address. Then each line is `add JSON`, which starts a node with these resources and FOLDER/nodeN as
its folder for temporary files, or `lose N`, which kills a node with all that runs on it. It answers each with
`done`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tenacity import retry, stop_after_attempt

ROOT = Path(__file__).parents[1]  # conftest, which has it too, imports this module

SIZE = {"object_store_memory": 150 * 2**20, "memory": 3 * 2**30}  # of a node, bytes


class Nodes:
    """A cluster, whose head runs no trainings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: set[int] = set()
        hides_gpus = "CUDA_VISIBLE_DEVICES"  # Ray starts no node with simulated GPUs that are hidden
        environment = {key: value for key, value in os.environ.items() if key != hides_gpus}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_nodes", str(folder)],
            cwd=ROOT,
            env=environment | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()
        assert self.address, "Ray did not start"

    def add(self, **resources: int) -> None:
        """Start a further node."""
        self._order("add", json.dumps(resources))

    def close(self) -> None:
        """Stop all nodes."""
        self.process.communicate(timeout=60)

    def lose(self, name: str) -> bool:
        """Kill the node on which a training runs, if there is one."""
        for folder in self.folder.glob(f"node*/pipeline-{name}-*"):
            number = int(folder.parent.name.removeprefix("node"))
            if number not in self.lost:
                self.lost.add(number)
                self._order("lose", str(number))
                return True
        return False

    def _order(self, order: str, argument: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{order} {argument}\n")
        self.process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def main() -> None:
    """Start the head, which runs no trainings, and do what is asked."""
    from ray.cluster_utils import Cluster

    again = retry(stop=stop_after_attempt(5), reraise=True)  # a node has 15 seconds to start, however busy
    head = SIZE | {"num_cpus": 0, "include_dashboard": False}
    cluster = again(Cluster)(initialize_head=True, head_node_args=head)
    print(cluster.address, flush=True)
    nodes: list[object] = []
    for line in sys.stdin:
        order, _, argument = line.partition(" ")
        if order == "add":
            own = Path(sys.argv[1]) / f"node{len(nodes)}"
            own.mkdir()
            environment = {"TMPDIR": str(own), "PYTHONPATH": str(ROOT)}
            resources = SIZE | json.loads(argument)
            nodes.append(again(cluster.add_node)(**resources, env_vars=environment))
        else:
            cluster.remove_node(nodes[int(argument)], allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
