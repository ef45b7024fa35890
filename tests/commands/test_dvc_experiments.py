"""`dvc exp run`: runs of experiments in temporary folders go to the checkout's MLflow store."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests import projects
from tests.conftest import ROOT, git
from tests.projects import Project


@pytest.mark.faults
def test_experiments_in_temporary_folders_leave_their_runs_here(tmp_path: Path) -> None:
    """Of a git repository with the stages up to a training of one epoch."""
    job = projects.make(tmp_path / "checkout", projects.small_params(shallow={"epochs": 1}))
    shutil.rmtree(job.folder / ".dvc")
    stages = yaml.safe_load((job.folder / "dvc.yaml").read_text())["stages"]
    kept = {name: stages[name] for name in ("fetch", "prepare", "recipes", "train")}
    (job.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}))
    shutil.copy(ROOT / ".gitignore", job.folder)
    git(["init", "--quiet"], job.folder)
    for key in ("user.name", "user.email"):
        git(["config", key, "a@b"], job.folder)
    job.run("dvc", "init", "--quiet")
    git(["add", "--all"], job.folder)
    git(["commit", "--quiet", "--message=start"], job.folder)

    here = Project(job.folder, {"MLFLOW_TRACKING_URI": ""})  # unset, as after `make setup`
    here.run("dvc", "exp", "run", "--temp", "--name=one")
    change = "variants.shallow.optimizer.learning_rate=0.002"
    here.run("dvc", "exp", "run", "--queue", "--name=two", "--set-param", change)
    here.run("dvc", "exp", "run", "--run-all")
    runs = {run.data.tags["dvc_experiment"]: run for run in job.runs()}
    rates = {name: run.data.params["optimizer.learning_rate"] for name, run in runs.items()}
    assert rates == {"one": "0.001", "two": "0.002"}
    for run in runs.values():
        assert run.info.status == "FINISHED"
        [model] = job.client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
        artifacts = Path(model.artifact_location.removeprefix("file://"))
        assert artifacts.is_relative_to(job.folder / "mlruns")
        assert (artifacts / "MLmodel").is_file()
