"""The networks, their models and their training, all that needs TensorFlow."""
