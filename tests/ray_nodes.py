"""A Ray cluster on this machine, in a process of its own, told what to do by its standard input.

    python -m tests.ray_nodes FOLDER

Prints the address. Then each line is `add JSON`, which starts a node with these resources and FOLDER/nodeN as
its folder for temporary files, or `lose N`, which kills a node with all that runs on it. Each is answered.
"""

import json
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from tests.conftest import ROOT

SIZE = {"object_store_memory": 150 * 2**20, "memory": 3 * 2**30}  # of a node, bytes


def main() -> None:
    """Start the head, which runs no trainings, and do what is asked."""
    cluster = Cluster(initialize_head=True, head_node_args=SIZE | {"num_cpus": 0, "include_dashboard": False})
    print(cluster.address, flush=True)
    nodes: list[object] = []
    for line in sys.stdin:
        order, _, argument = line.partition(" ")
        if order == "add":
            own = Path(sys.argv[1]) / f"node{len(nodes)}"
            own.mkdir()
            environment = {"TMPDIR": str(own), "PYTHONPATH": str(ROOT)}
            nodes.append(cluster.add_node(**SIZE, **json.loads(argument), env_vars=environment))
        else:
            cluster.remove_node(nodes[int(argument)], allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
