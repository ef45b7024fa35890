"""Backup and restore of a real store with a served model, also while runs write to it."""

import contextlib
import io
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from pipeline import backup, restore
from pipeline.champion import serving
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from tests.keras_models import network_model

CLASSES = [f"class{number}" for number in range(10)]
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def run(command: str, folder: Path, *arguments: str, uri: str = "") -> list[str]:
    """What `python -m pipeline.COMMAND` prints in a folder; its store is mlflow.db unless `uri` names one."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri or f"sqlite:///{folder / 'mlflow.db'}")
        patch.setattr(sys, "argv", [command, *arguments])
        {"backup": backup.main, "restore": restore.main}[command]()
    return output.getvalue().splitlines()


def refused(command: str, folder: Path, *arguments: str, uri: str = "") -> str:
    """The one line that a command is refused with."""
    with pytest.raises(SystemExit) as ended:
        run(command, folder, *arguments, uri=uri)
    line = str(ended.value.code)  # which Python prints, with exit status 1
    assert line.startswith("error: ")
    assert "\n" not in line
    return line.removeprefix("error: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def store_in(folder: Path) -> Iterator[MlflowClient]:
    """MLflow's client of the store in a folder, which is the working directory."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield MlflowClient(uri)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, one with a space in its name, with a store in which a model is served, and its backup."""
    folder = tmp_path_factory.mktemp("a store")
    keras.utils.set_random_seed(0)
    model_file.save(network_model("translate", len(CLASSES)), folder / "model.keras")
    with store_in(folder) as client:
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


def test_backup_holds_the_store_and_all_artifacts(saved: Path) -> None:
    with zipfile.ZipFile(saved / "kept/backup.zip") as archive:
        names = archive.namelist()
    assert (names[0], names[-1]) == ("mlflow.db", "manifest.json")
    own = [path for part in ("mlruns", "elsewhere here", "mlartifacts") for path in (saved / part).rglob("*")]
    assert len(names) - 2 == len([path for path in own if path.is_file()])


def test_restored_elsewhere_runs_artifacts_and_the_champion_are_there_without_the_old_folder(
    saved: Path, tmp_path: Path
) -> None:
    aside, new = saved.with_name("aside"), tmp_path / "new folder"
    new.mkdir()
    saved.rename(aside)  # nothing is left where the store says that it is
    try:
        run("restore", new, str(aside / "kept/backup.zip"))
        with store_in(new) as client:
            for experiment, text in (("digits", "kept"), ("uri", "by uri")):
                found = client.get_experiment_by_name(experiment)
                assert found is not None
                [one] = client.search_runs([found.experiment_id])
                assert mlflow.artifacts.load_text(f"{one.info.artifact_uri}/note.txt") == text
            model = mlflow.pyfunc.load_model("models:/digits@champion")
            answer = model.predict(serving.example_request(PIXELS))
        assert set(answer[0]["probabilities"]) == set(CLASSES)
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
    line = refused("restore", tmp_path, str(saved / "kept/backup.zip"))
    assert line.endswith(": already there: move it aside first")
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".restore-*"))


def without_notes(content: bytes) -> bytes:
    less = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(less, "w") as new:
        for name in old.namelist():
            if not name.endswith("note.txt"):
                new.writestr(name, old.read(name))
    return less.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content.replace(middle := content[len(content) // 2 :][:9], middle[::-1]),
    "empty": lambda _: b"",
    "another file": lambda _: b"no archive" * 100,
    "without some files": without_notes,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_backup_is_refused_and_nothing_is_left_of_it(saved: Path, tmp_path: Path, how: str) -> None:
    content = (saved / "kept/backup.zip").read_bytes()
    assert DAMAGES[how](content) != content
    (tmp_path / "backup.zip").write_bytes(DAMAGES[how](content))
    assert refused("restore", tmp_path, "backup.zip").startswith("backup.zip: not a complete backup: ")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.zip"]


@pytest.mark.parametrize(
    ("command", "file", "uri", "expected"),
    [
        ("backup", "a.zip", "sqlite:///none.db", "none.db: no such file: there is nothing to back up"),
        ("backup", "a.zip", "http://127.0.0.1:9", "http://127.0.0.1:9: an SQLite file is allowed"),
        ("backup", "kept/backup.zip", "", "kept/backup.zip: already exists"),
        ("backup", "mlflow.db/a.zip", "", "mlflow.db: cannot be backed up to mlflow.db/a.zip: File exists"),
        ("restore", "none.zip", "sqlite:///none.db", "none.zip: no such file"),
        (
            "restore",
            "a.zip",
            "postgresql://me:hunter2@127.0.0.1:9/x",
            "postgresql://***@127.0.0.1:9/x: an SQL",
        ),
    ],
)
def test_impossible_commands_are_refused_and_change_nothing(
    saved: Path, command: str, file: str, uri: str, expected: str
) -> None:
    before = contents(saved)
    assert expected in refused(command, saved, file, uri=uri)
    assert contents(saved) == before


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can be made longer than 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_nothing_of_a_backup_or_a_restore(saved: Path, tmp_path: Path) -> None:
    before = contents(saved)
    with full_disk():
        assert refused("backup", saved, "full/backup.zip")
        assert refused("restore", tmp_path, str(saved / "kept/backup.zip"))
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


def test_backup_taken_while_runs_write_is_consistent(tmp_path: Path) -> None:
    """What the copied store calls finished has all its metrics, tags and artifacts in the backup."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    uri = f"sqlite:///{old / 'mlflow.db'}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER],
        cwd=old,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        try:
            for _ in range(5):
                assert writer.stdout.readline()
            run("backup", old, "../busy.zip")
            assert writer.poll() is None
        finally:
            writer.kill()
    shutil.rmtree(old)
    run("restore", new, "../busy.zip")
    with store_in(new) as client:
        experiment = client.get_experiment_by_name("busy")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        whole = [one for one in runs if one.info.status == "FINISHED"]
        assert len(whole) >= 5
        assert len(runs) - len(whole) <= 1
        for one in whole:
            number = one.info.run_name
            assert (one.data.metrics["before"], one.data.tags["whole"]) == (float(number), "yes")
            assert mlflow.artifacts.load_text(f"{one.info.artifact_uri}/number.txt") == number
