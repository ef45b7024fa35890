"""CIFAR-10 from the archive to a served champion.

    __main__    the command line: `python -m pipeline --help` lists all stages and commands
    params      params.yaml as frozen objects

    commands    what people run around the stages
    running     jobs ahead of their stages, on this machine or on a cluster
    stages      the stages of dvc.yaml: a module each, or a folder whose `stage.py` is the stage
    shared      what only other stages than `train` and `predict` share
    core        what a training or a prediction uses, and nothing else
    support     what cannot change a result: errors, locks, paths, DVC's files, MLflow's store and runs

A module imports only from its own folder and those below it in this list. A stage depends on its own code,
`core` and, as it needs them, `shared` and `params`, which dvc.yaml lists.
"""

import gc

# Imports make millions of objects that stay: looking for garbage among them every 700 new ones, Python's
# default, is a fifth of a stage's start.
gc.set_threshold(100_000)
