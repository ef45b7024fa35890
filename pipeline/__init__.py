"""CIFAR-10 from archive to served champion, one module for each DVC stage (see dvc.yaml)."""
