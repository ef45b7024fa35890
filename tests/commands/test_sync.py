"""`sync` logs and promotes only scores that are those of the model, and says what it skips."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from pipeline.core.arrays import write_json
from pipeline.support.digests import digest_of
from pipeline.support.model_files import TrainingRecord
from tests import projects
from tests.called import call
from tests.conftest import change
from tests.projects import Project, copied, small_params

NAME = "shallow-0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project without a champion, in which one model was trained, evaluated and chosen."""
    job = projects.prepared(tmp_path_factory.mktemp("sync") / "job", small_params(shallow={"epochs": 1}))
    for stage in ("train shallow 0", "predict shallow 0", "evaluate", "select"):
        assert call(job.folder, *stage.split()).error is None
    return job


@pytest.fixture
def job(trained: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return copied(trained, tmp_path / "job")


@pytest.fixture
def without_runs(job: Project) -> Project:
    """The copy with an empty store, as a clone has it."""
    (job.folder / "mlflow.db").unlink()
    return job


def edit(path: Path, key: str, value: Any) -> None:
    """Set a value of a JSON file."""
    content = json.loads(path.read_text())
    change(content, key, value)
    write_json(path, content)


def metrics_of(job: Project) -> list[dict[str, float]]:
    """The metrics of each run, the oldest first."""
    return [run.data.metrics for run in job.runs()]


def names_of(job: Project) -> list[str | None]:
    """The name of each run, the oldest first."""
    return [run.info.run_name for run in job.runs()]


def retrain(job: Project) -> None:
    """Train its model for another epoch."""
    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    params["variants"]["shallow"]["epochs"] = 2
    (job.folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("recipes", "train shallow 0"):
        assert call(job.folder, *stage.split()).error is None


def test_scores_of_a_former_model_are_not_those_of_the_new_one(job: Project) -> None:
    retrain(job)
    skipped = f"predictions/{NAME}: not of models/{NAME}/model.keras: run `dvc repro evaluate`"
    chosen = f"models/{NAME}/model.keras: is not the model that was chosen: run `dvc repro select`"
    lines = call(job.folder, "sync").out.splitlines()
    assert lines[:2] == [f"sync: {NAME}: skipped: {skipped}", f"sync: not promoted: {chosen}"]
    former, new = metrics_of(job)
    assert "test/accuracy" in former
    assert "validation/accuracy" in new
    assert "test/accuracy" not in new
    for stage in ("predict shallow 0", "evaluate"):  # as the command that it names does
        assert call(job.folder, *stage.split()).error is None
    assert "test/accuracy" in metrics_of(job)[1]


def test_a_run_is_called_by_what_became_of_its_model(trained: Project, without_runs: Project) -> None:
    """Of a training whose result is copied in an experiment, trained again, and restored by DVC."""
    job = without_runs
    record = job.folder / f"models/{NAME}/training.json"
    key = digest_of(TrainingRecord.model_validate_json(record.read_text()).identity)
    shutil.copytree(record.parent, job.folder / ".pipeline/results" / key)
    call(job.folder, "train", "shallow", "0", DVC_EXP_NAME="slow")
    call(job.folder, "sync")
    assert names_of(job) == [f"{NAME} (slow, restored)"]
    retrain(job)
    for stage in ("predict shallow 0", "evaluate"):
        call(job.folder, *stage.split())
    assert names_of(job) == [f"{NAME} (slow, restored, superseded)", NAME]
    for name in ("models", "predictions", "evaluation", "metrics", "recipes"):
        shutil.copytree(trained.folder / name, job.folder / name, dirs_exist_ok=True)
    call(job.folder, "sync")
    assert names_of(job) == [f"{NAME} (slow, restored)", f"{NAME} (superseded)"]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_edited_score_is_not_logged(without_runs: Project, part: str) -> None:
    edit(without_runs.folder / f"metrics/{NAME}.json", f"{part}.accuracy", 0.999)
    logged, skipped, *_ = call(without_runs.folder, "sync").out.splitlines()
    assert logged == f"sync: {NAME}: logged its run"
    assert skipped.startswith(f"sync: {NAME}: skipped: metrics/{NAME}.json: {part} accuracy 0.999, but ")
    assert skipped.endswith(": run `dvc repro evaluate`")
    assert "test/accuracy" not in metrics_of(without_runs)[0]


@pytest.mark.parametrize("predicted", [True, False])
def test_an_edited_record_is_not_logged(without_runs: Project, predicted: bool) -> None:
    edit(without_runs.folder / f"models/{NAME}/training.json", "metrics.validation/accuracy", 0.999)
    if not predicted:
        shutil.rmtree(without_runs.folder / f"predictions/{NAME}")
    skipped = call(without_runs.folder, "sync").out.splitlines()[0]
    record = f"models/{NAME}/training.json: validation/accuracy is 0.999, but the model has "
    assert skipped.startswith(f"sync: {NAME}: skipped: {record}")
    assert skipped.endswith(f": run `dvc checkout --force models/{NAME}`")
    assert not without_runs.runs()


EDITS = {"validation_score": 0.999, "mean_validation_score": 0.999, "seeds": 3}


@pytest.mark.parametrize(("key", "value"), EDITS.items())
def test_an_edited_selection_is_not_promoted(job: Project, key: str, value: float) -> None:
    edit(job.folder / "selection.json", key, value)
    refused = call(job.folder, "promote").refusal
    assert refused.startswith("selection.json: seeds, score and mean score are (")
    assert refused.endswith(": run `dvc repro select`")
    assert call(job.folder, "sync").out.startswith(f"sync: not promoted: {refused}\n")


def test_an_edited_report_is_not_logged(job: Project) -> None:
    job.run("dvc", "init", "--no-scm")
    (job.folder / "reports").mkdir()
    (job.folder / "reports/model-card.md").write_text("Accuracy 0.999")
    report = {"path": "reports", "hash": "md5", "md5": "0.dir"}
    (job.folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"report": {"outs": [report]}}}))
    (job.folder / "selection.json").unlink()
    printed = call(job.folder, "sync").out
    assert printed.startswith("sync: reports: skipped, since it was edited: run `dvc repro report`\n")
    assert names_of(job) == [NAME]


def test_a_model_that_is_being_trained_is_skipped(without_runs: Project) -> None:
    (without_runs.folder / f"models/{NAME}/training.json").unlink()  # which is written last
    (without_runs.folder / "selection.json").unlink()
    with FileLock(without_runs.folder / f".pipeline/locks/train-{NAME}.lock"):
        printed = call(without_runs.folder, "sync").out
    assert printed.splitlines()[0] == f"sync: {NAME}: skipped, since it is being trained"
    assert not without_runs.runs()
