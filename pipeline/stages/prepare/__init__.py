"""Checks and splits the images."""
