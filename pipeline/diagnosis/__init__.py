"""What is wrong with the data, and what the chosen model cannot bear, for `pipeline.diagnose`."""
