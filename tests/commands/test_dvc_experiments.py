"""`dvc exp run` as docs/using.md prints it: the runs of its temporary folders go to the checkout's store."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests import projects
from tests.conftest import PARAMS, ROOT, add_environment
from tests.docs import examples
from tests.processes import wait_for
from tests.projects import Project

QUEUE, COMPARE, *_ = examples("docs/using.md", "bash", count=5)


@pytest.mark.faults
def test_queued_experiments_leave_their_runs_here_and_one_is_applied(tmp_path: Path) -> None:
    """Of a git repository with the stages up to a training of one epoch."""
    job = projects.make(tmp_path / "checkout", yaml.safe_load(PARAMS.read_text()))  # CIFAR-10
    shutil.rmtree(job.folder / ".dvc")
    projects.keep_stages(job.folder, "fetch", "prepare", "recipes", "train")
    for name in (".gitignore", "Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, job.folder)
    add_environment(job.folder)
    projects.commit(job.folder)
    (job.folder / "quickstart").mkdir()
    small = projects.small_params(shallow={"epochs": 1, "training_images": 10_000})
    (job.folder / "quickstart/params.yaml").write_text(json.dumps(small))

    here = Project(job.folder, {"MLFLOW_TRACKING_URI": ""})  # unset, as after `make setup`
    here.run("bash", "-euc", QUEUE)
    wait_for(lambda: here.run("dvc", "queue", "status").count("Success") == 2)
    runs = {run.data.tags["dvc_experiment"]: run for run in job.runs()}
    rates = {name: run.data.params["optimizer.learning_rate"] for name, run in runs.items()}
    assert rates == {"slow": "0.0005", "fast": "0.002"}
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"shallow-0 ({run.data.tags['dvc_experiment']})"
        [model] = job.client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
        artifacts = Path(model.artifact_location.removeprefix("file://"))
        assert artifacts.is_relative_to(job.folder / "mlruns")
        assert (artifacts / "MLmodel").is_file()
    assert "0.0005" in here.run("bash", "-euc", COMPARE)
    assert "learning_rate: 0.002" in (job.folder / "params.yaml").read_text()
