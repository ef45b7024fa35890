"""Images: had, read and kept as arrays that every reader checks."""
