"""What only other stages than `train` and `predict` share."""
