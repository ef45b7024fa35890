"""Networks and optimizers, and their checked Keras configurations."""
