"""MLflow's store, and the runs of trainings in it."""
