"""Classifying images with a registered model: for `pipeline.classify` and the page of `pipeline.demo`."""
