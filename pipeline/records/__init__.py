"""What MLflow keeps of a training: its store, the runs and what is in them."""
