"""CIFAR-10 from the archive to a served model: a module for each command, and folders of what they share."""

import gc

# Imports make millions of objects that stay: looking for garbage among them every 700 new ones, Python's
# default, is a fifth of a stage's start.
gc.set_threshold(100_000)
