"""The paths that dvc.yaml lists, relative to the folder that the stages run in."""

from pathlib import Path

PARAMS = Path("params.yaml")

DOWNLOADS = Path("data/download")
LISTINGS = Path("data/images")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
RECIPES = Path("recipes")

# Folders with a subfolder or file for each trained model: see support/model_files.py.
MODELS = Path("models")
PREDICTIONS = Path("predictions")
EVALUATION = Path("evaluation")
METRICS = Path("metrics")

SELECTION = Path("selection.json")
DIAGNOSIS = Path("diagnosis")
REPORTS = Path("reports")

# The pipeline's own working files, which are part of no result.
WORK = Path(".pipeline")
CHECKPOINTS = WORK / "checkpoints"
LOCKS = WORK / "locks"
RESULTS = WORK / "results"
SEARCHES = WORK / "search"
WORKSPACE = WORK / "workspace"
