"""One training."""
