"""Trainings and predictions ahead of their stages, in warm workers, with a live view."""
