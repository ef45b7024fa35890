"""Where the stages read and write, from the folder that they run in: the paths that dvc.yaml lists."""

from pathlib import Path

PARAMS = Path("params.yaml")

DOWNLOADS = Path("data/download")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
PRECISION = Path("precision.json")

# For each trained model a folder or file named VARIANT-SEED.
MODELS = Path("models")
EVALUATION = Path("evaluation")
METRICS = Path("metrics")

CHAMPION = Path("champion.json")
REPORTS = Path("reports")

# What a stage keeps for itself while it runs, for the next run of it: no part of any result.
KEPT = Path(".pipeline")
CHECKPOINTS = KEPT / "checkpoints"
LOCKS = KEPT / "locks"
WORKSPACE = KEPT / "workspace"
