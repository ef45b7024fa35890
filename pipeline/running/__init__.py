"""Trainings and predictions ahead of their stages, in workers, with a live view."""
