"""One training: its data order and callbacks, the fast twin of the model, the checkpoints."""
