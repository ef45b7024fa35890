"""Stages as parallel processes, and their live view."""
