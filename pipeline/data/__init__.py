"""Downloading, decoding and storing images."""
