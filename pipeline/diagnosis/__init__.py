"""Near duplicates, label errors and robustness, for `pipeline.diagnose`."""
