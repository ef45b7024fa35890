"""The modules that cannot change the content of any result, each with the reason.

No stage of dvc.yaml lists them and no checkpoint's key covers them, so editing one reruns nothing.
"""

NEUTRAL = {
    "pipeline/integrity.py": "compares files with dvc.lock and restores damaged ones",
    "pipeline/records/outputs.py": "logs the files of evaluate and report to MLflow",
    "pipeline/records/recording.py": "logs a training's files to MLflow",
    "pipeline/records/store.py": "checks that MLflow's store can be used",
    "pipeline/records/tracking.py": "starts, finds and ends MLflow runs",
    "pipeline/shared/dvc_lock.py": "reads dvc.lock",
    "pipeline/shared/errors.py": "words errors",
    "pipeline/shared/load_params.py": "parses params.yaml, whose values DVC compares itself",
    "pipeline/shared/lock.py": "keeps two processes from doing the same work",
    "pipeline/shared/neutral.py": "this list",
    "pipeline/shared/paths.py": "names files that dvc.yaml names too",
    "pipeline/shared/reading.py": "reads results and refuses impossible ones",
    "pipeline/shared/results.py": "copies results that were made ahead of their stages",
    "pipeline/shared/trained.py": "names the files of a trained model and reads its records",
}
