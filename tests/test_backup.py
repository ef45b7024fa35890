"""Backup and restore of a real store with a served model, also while runs write to it."""

import contextlib
import io
import json
import resource
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.champion import serving
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from tests.conftest import contents
from tests.jobs import Job, call
from tests.keras_models import DAMAGES, network_model

CLASSES = [f"class{number}" for number in range(10)]
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def run(command: str, folder: Path, file: str) -> list[str]:
    """What `python -m pipeline.COMMAND` prints in a folder."""
    called = call(folder, command, file)
    assert called.error is None
    return called.out.splitlines()


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to restore to, whose store is the one that is used."""
    (tmp_path / "new folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'new folder/mlflow.db'}")
    return tmp_path / "new folder"


def runs_of(name: str) -> list[Run]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, one with a space in its name, with a store in which a model is served, and its backup."""
    folder = tmp_path_factory.mktemp("a store")
    keras.utils.set_random_seed(0)
    model_file.save(network_model("translate", len(CLASSES)), folder / "model.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        client = MlflowClient()
        client.create_experiment("far", artifact_location="s3://bucket/far")
        client.create_experiment("uri", artifact_location=(folder / "elsewhere here").as_uri())
        client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
        (folder / "mlartifacts/7").mkdir(parents=True)
        (folder / "mlartifacts/7/note.txt").write_text("of the server")
        client.log_text(client.create_run("2").info.run_id, "by uri", "note.txt")
        mlflow.set_experiment("digits")
        with mlflow.start_run(run_name="shallow-0"):
            mlflow.log_text("kept", "note.txt")
            mlflow.pyfunc.log_model(
                name="served_model",
                registered_model_name="digits",
                **serving.described(folder / "model.keras", CLASSES, PIXELS, 4),
            )
        client.set_registered_model_alias("digits", "champion", "1")
    skipped, last = run("backup", folder, "kept/backup.zip")
    assert skipped == "backup: skipped, since it is not on this machine: s3://bucket/far"
    assert last.startswith("backup: kept/backup.zip: 2 runs, ")
    return folder


def test_restored_elsewhere_runs_artifacts_and_the_champion_are_there_without_the_old_folder(
    saved: Path, new: Path
) -> None:
    aside = saved.with_name("aside")
    saved.rename(aside)  # nothing is left where the store says that it is
    try:
        run("restore", new, str(aside / "kept/backup.zip"))
        for experiment, text in (("digits", "kept"), ("uri", "by uri")):
            [one] = runs_of(experiment)
            assert mlflow.artifacts.load_text(f"{one.info.artifact_uri}/note.txt") == text
        model = mlflow.pyfunc.load_model("models:/digits@champion")
        assert set(model.predict(serving.example_request(PIXELS))[0]["probabilities"]) == set(CLASSES)
        assert (new / "mlartifacts/7/note.txt").read_text() == "of the server"
        with contextlib.closing(sqlite3.connect(new / "mlflow.db")) as store:
            assert [row for row in store.iterdump() if str(saved) in row] == []
    finally:
        aside.rename(saved)


def test_restore_in_place_gives_back_what_was_there(saved: Path, tmp_path: Path) -> None:
    parts = ("mlflow.db", "mlruns", "mlartifacts", "elsewhere here")
    before = {name: contents(saved / name) for name in parts}
    for name in parts:
        (saved / name).rename(tmp_path / name)
    run("restore", saved, "kept/backup.zip")
    assert {name: contents(saved / name) for name in parts} == before
    one, other = (sqlite3.connect(folder / "mlflow.db") for folder in (saved, tmp_path))
    with contextlib.closing(one), contextlib.closing(other):
        assert list(one.iterdump()) == list(other.iterdump())


@pytest.mark.parametrize("there", ["mlflow.db", "mlflow.db-journal", "mlruns/1/note", "elsewhere here/note"])
def test_restore_overwrites_nothing(saved: Path, tmp_path: Path, there: str) -> None:
    with contextlib.closing(sqlite3.connect(saved / "mlflow.db")) as store:
        rows = store.execute("SELECT experiment_id FROM experiments WHERE name = 'digits'").fetchone()
    path = tmp_path / there.replace("mlruns/1", f"mlruns/{rows[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    before = contents(tmp_path)
    refused = call(tmp_path, "restore", str(saved / "kept/backup.zip")).refusal
    assert refused.endswith(": already there: move it aside first")
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".restore-*"))


def without_notes(content: bytes) -> bytes:
    less = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(less, "w") as new:
        for name in old.namelist():
            if not name.endswith("note.txt"):
                new.writestr(name, old.read(name))
    return less.getvalue()


@pytest.mark.parametrize("damage", [*DAMAGES.values(), without_notes], ids=[*DAMAGES, "without notes"])
def test_a_damaged_backup_is_refused_and_nothing_is_left_of_it(
    saved: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "backup.zip").write_bytes(damage((saved / "kept/backup.zip").read_bytes()))
    refused = call(tmp_path, "restore", "backup.zip").refusal
    assert refused.startswith("backup.zip: not a complete backup: ")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.zip"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"not a database, however long" * 99, "is damaged: file is not a database"),
        (b"", "is not a store"),
    ],
)
def test_a_backup_of_something_else_is_refused(
    saved: Path, tmp_path: Path, content: bytes, problem: str
) -> None:
    with zipfile.ZipFile(saved / "kept/backup.zip") as old:
        manifest = json.loads(old.read("manifest.json")) | {"files": 1, "roots": {}}
    with zipfile.ZipFile(tmp_path / "backup.zip", "w") as new:
        new.writestr("mlflow.db", content)
        new.writestr("manifest.json", json.dumps(manifest))
    refused = call(tmp_path, "restore", "backup.zip").refusal
    assert refused.startswith(f"backup.zip: its mlflow.db {problem}")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.zip"]


def test_artifacts_that_a_server_keeps_elsewhere_are_reported_as_skipped(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
    skipped = run("backup", tmp_path, "backup.zip")[0]
    assert skipped == "backup: skipped, since it is not on this machine: mlflow-artifacts:/7"


def test_an_empty_store_cannot_be_backed_up(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert "cannot be backed up: no such table: experiments" in call(tmp_path, "backup").refusal


POSTGRES = "postgresql://me:hunter2@127.0.0.1:9/x"


@pytest.mark.parametrize(
    ("command", "uri", "expected"),
    [
        ("backup a.zip", "sqlite:///none.db", "none.db: no such file: there is nothing to back up"),
        ("backup a.zip", "http://127.0.0.1:9", "http://127.0.0.1:9: not an SQLite file"),
        ("backup kept/backup.zip", None, "kept/backup.zip: already exists"),
        ("backup mlflow.db/a.zip", None, "mlflow.db: cannot be backed up to mlflow.db/a.zip: File exists"),
        ("restore none.zip", "sqlite:///none.db", "none.zip: no such file"),
        ("restore a.zip", POSTGRES, "postgresql://***@127.0.0.1:9/x: not an SQLite file"),
    ],
)
def test_impossible_commands_are_refused_and_change_nothing(
    saved: Path, command: str, uri: str | None, expected: str
) -> None:
    before, store = contents(saved), f"sqlite:///{saved}/mlflow.db"
    assert expected in call(saved, *command.split(), MLFLOW_TRACKING_URI=uri or store).refusal
    assert contents(saved) == before


def test_full_disk_leaves_nothing_of_a_backup_or_a_restore(saved: Path, tmp_path: Path) -> None:
    before, (soft, hard) = contents(saved), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file can be longer
    try:
        assert call(saved, "backup", "full/backup.zip").refusal
        assert call(tmp_path, "restore", str(saved / "kept/backup.zip")).refusal
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(saved) == before
    assert not list(tmp_path.iterdir())


WRITER = """
import sys, mlflow
mlflow.set_experiment("busy")
for number in range(10**6):
    with mlflow.start_run(run_name=str(number)):
        mlflow.log_metric("before", number)
        mlflow.log_text(str(number), "number.txt")
        mlflow.set_tag("whole", "yes")
    print(number, flush=True)
"""


def test_backup_taken_while_runs_write_is_consistent(tmp_path: Path, new: Path) -> None:
    """What the copied store calls finished has all its metrics, tags and artifacts in the backup."""
    old = tmp_path / "old"
    old.mkdir()
    with Job(old).start(sys.executable, "-c", WRITER) as writer:
        assert writer.stdout
        while writer.stdout.readline() != "5\n":
            assert writer.poll() is None
        run("backup", old, "../busy.zip")
        assert writer.poll() is None
        writer.kill()
    shutil.rmtree(old)
    run("restore", new, "../busy.zip")
    runs = runs_of("busy")
    whole = [one for one in runs if one.info.status == "FINISHED"]
    assert len(whole) >= 5
    assert len(runs) - len(whole) <= 1
    for one in whole:
        number = one.info.run_name
        assert (one.data.metrics["before"], one.data.tags["whole"]) == (float(number), "yes")
        assert mlflow.artifacts.load_text(f"{one.info.artifact_uri}/number.txt") == number
