"""The comparison of all models, and the model card."""
