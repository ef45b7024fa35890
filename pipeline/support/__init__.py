"""What cannot change a result: errors, locks, paths, DVC's files, MLflow's store and runs."""
