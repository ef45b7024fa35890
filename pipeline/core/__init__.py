"""What a training or a prediction uses, and nothing else."""
