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
IMAGES = WORK / "images"
LOCKS = WORK / "locks"
RESULTS = WORK / "results"
SEARCHES = WORK / "search"
WORKSPACE = WORK / "workspace"


def check_apart(folder: str) -> str:
    """A folder of the user's own files. Raises ValueError if the pipeline writes in it or around it: before a
    stage runs, DVC deletes what the stage writes."""
    results = (LISTINGS, RAW, PREPARED, DOWNLOADS, RECIPES, MODELS, PREDICTIONS, EVALUATION, METRICS)
    given = Path(folder).resolve()
    for path in (*results, DIAGNOSIS, REPORTS, WORK):
        written = path.resolve()
        if given.is_relative_to(written) or written.is_relative_to(given):
            raise ValueError(
                f"must be apart from {path}, which the pipeline writes: move it, such as to photos"
            )
    return folder
