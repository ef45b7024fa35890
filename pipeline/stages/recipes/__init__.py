"""Networks and optimizers, and the recipe of each variant."""
