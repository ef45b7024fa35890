"""What is said of the champion is what is served: promote, rollback, sync and DVC's run cache together."""

import json
import re
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.utils.file_utils import local_file_uri_to_path

from pipeline.commands import loaded_model
from pipeline.stages.promote import serving_check
from pipeline.support import mlflow_aliases, mlflow_registry
from tests.called import call, this_process
from tests.conftest import BIN, Clone, contents
from tests.projects import Project, copied

NAME = "digits"


@pytest.fixture(scope="module")
def synced(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished quickstart with an empty store, which `sync` filled."""
    made = copied(Project(clone.folder / "quickstart"), tmp_path_factory.mktemp("synced") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_check, "new_process", this_process)
        assert "sync: digits: version 1 is champion: " in call(made.folder, "sync").out
    return made


@pytest.fixture
def job(synced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it and of its store."""
    monkeypatch.setattr(serving_check, "new_process", this_process)
    made = copied(synced, tmp_path / "copy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.store)
    return made


def say(job: Project, *command: str) -> str:
    """The lines of a command that ends well."""
    done = call(job.folder, *command)
    assert done.error is None
    return done.out


def described(job: Project) -> str:
    """Take the description of version 1 away, and return what it was."""
    text = str(job.client.get_model_version(NAME, "1").description)
    job.client.update_model_version(NAME, "1", description="")
    return text


def test_a_server_cannot_control_the_terminal(job: Project) -> None:
    job.client.set_model_version_tag(NAME, "1", "variant", "\x1b[2Jgone")
    assert "digits: version 1 is champion, \\x1b[2Jgone-0, since " in say(job, "champion")


def test_what_is_said_is_what_is_served(job: Project) -> None:
    """After an edit and its reversal, a forced promotion, a rollback, an alias set by hand, and a sync."""
    original = (job.folder / "params.yaml").read_text()
    params = yaml.safe_load(original)
    best = mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").tags["variant"]
    [champion] = say(job, "champion").splitlines()
    assert re.fullmatch(
        rf"digits: version 1 is champion, {best}-0, since [-\d]+ [\d:]+ UTC: {best} has .*", champion
    )

    others = {name: variant for name, variant in params["variants"].items() if name != best}
    (job.folder / "params.yaml").write_text(json.dumps(params | {"variants": others}))
    printed = job.run("dvc", "repro", "promote")
    assert "digits: not promoted: validation accuracy" in printed
    refused = say(job, "champion").splitlines()
    assert refused[0] == champion
    assert re.match(
        r"digits: the chosen model, \w+-0, was refused: validation accuracy .* is not", refused[1]
    )
    assert "version 2 is champion: " in say(job, "promote", "--force")
    assert "promoted by FORCE=1" in say(job, "champion")

    (job.folder / "params.yaml").write_text(original)
    printed = job.run("dvc", "repro", "promote")
    reason = "its version 1 was champion before; `make rollback` makes it champion again"
    assert f"digits: not promoted: {reason}" in printed  # the stage ran: DVC restored nothing of it
    assert say(job, "champion").endswith(f"digits: the chosen model, {best}-0, was refused: {reason}\n")
    assert say(job, "sync").startswith("sync: nothing was missing\n")
    assert say(job, "champion").startswith("digits: version 2 is champion, ")

    assert "version 1 is champion again" in say(job, "rollback")
    assert "UTC: rolled back from version 2\n" in say(job, "champion")
    assert say(job, "promote") == "digits: version 1 stays champion: it is the same model\n"
    mlflow_aliases.set_alias(NAME, "champion", "2")
    assert "since an unknown time: its alias was set by hand\n" in say(job, "champion")
    mended = "digits: version 1 is previous, since version 2 was also champion"
    assert say(job, "sync").startswith(f"sync: {mended}\n")
    assert say(job, "sync").startswith("sync: nothing was missing\n")
    assert "`make rollback` makes it champion again" in say(job, "promote")
    assert "UTC: its alias was set by hand\n" in say(job, "champion")


def test_whichever_of_promote_and_report_runs_second_writes_the_card_as_description(job: Project) -> None:
    text = described(job)
    assert text.startswith("# digits: ")
    for second in ("promote", "report", "sync"):
        assert say(job, second)
        assert described(job) == text
    card = job.folder / "reports/model-card.md"
    card.write_text(card.read_text().replace('model_digest: "', 'model_digest: "0'))
    say(job, "promote")
    assert described(job) == ""  # the card is of another model


def test_a_model_that_is_not_the_chosen_one_is_refused_and_no_champion_is_said(job: Project) -> None:
    selection = job.folder / "selection.json"
    selection.write_text(re.sub('"model_digest": ".', '"model_digest": "', selection.read_text()))
    refused = call(job.folder, "promote").refusal
    assert refused.endswith("model.keras: is not the model that was chosen: run `dvc repro select`")
    mlflow.MlflowClient().delete_registered_model(NAME)
    none, chosen = say(job, "champion").splitlines()
    assert none == "digits: there is no champion"
    assert chosen.endswith(" is not champion: `make promote` promotes it or says why not")


def places(job: Project) -> set[Path]:
    """The folders of all experiments, runs and models."""
    client = job.client
    numbers = [found.experiment_id for found in client.search_experiments()]
    models = client.search_logged_models(numbers)
    paths = [client.get_experiment(number).artifact_location for number in numbers]
    paths += [run.info.artifact_uri for run in job.runs()] + [model.artifact_location for model in models]
    paths += [client.get_model_version_download_uri(NAME, "1")]
    return {Path(local_file_uri_to_path(path)) for path in paths}


def test_a_copied_and_a_moved_checkout_find_their_files_and_log_nothing_elsewhere(
    synced: Project, job: Project, tmp_path: Path
) -> None:
    before = contents(synced.folder / "mlruns").keys()
    for now, limit in ((job, 32), (Project(tmp_path / "moved"), 16)):
        if now is not job:
            job.folder.rename(now.folder)
        called = call(now.folder, "sync")
        moved = f"mlflow.db: was moved or copied: its files are now in {now.folder / 'mlruns'}\n"
        assert (called.error, called.err) == (None, moved)
        assert called.out.startswith("sync: nothing was missing\n")
        assert all(path.is_relative_to(now.folder / "mlruns") for path in places(now))
        params = now.folder / "params.yaml"
        settings = yaml.safe_load(params.read_text()) | {"serving": {"batch_limit": limit}}
        params.write_text(json.dumps(settings))
        assert "served in another way" in say(now, "promote")  # with new files
    assert not job.folder.exists()
    assert contents(synced.folder / "mlruns").keys() == before


@pytest.mark.parametrize("collected", [False, True])
def test_a_champion_whose_files_were_deleted_is_registered_again(job: Project, collected: bool) -> None:
    """In MLflow's pages, also after `mlflow gc`; it need not be the chosen model."""
    (job.folder / "selection.json").unlink()
    say(job, "champion")  # in a copied folder
    history = mlflow_registry.history(NAME)
    version = job.client.get_model_version(NAME, "1")
    for model in job.client.search_logged_models(["1"], f"source_run_id = '{version.run_id}'"):
        job.client.delete_logged_model(model.model_id)
    if collected:
        job.run(str(BIN / "mlflow"), "gc", "--backend-store-uri", job.store)
    refused = call(job.folder, "serve").refusal
    assert refused.startswith("models:/digits@champion: cannot be loaded: ")
    assert refused.endswith("its files were deleted: `make sync`, where it was trained, registers it again")
    runs, _, registered = say(job, "sync").partition("sync: digits: ")
    assert re.fullmatch(r"sync: (\S+): logged its run\nsync: \1: logged its evaluation\n", runs)
    assert registered.startswith("version 2 is champion: the same model as version 1, registered again")
    assert mlflow_registry.history(NAME) == history
    assert loaded_model.load_model(f"models:/{NAME}@champion")
    assert say(job, "sync").startswith("sync: nothing was missing\n")


def test_a_lost_champion_whose_model_is_not_here_is_named(job: Project) -> None:
    say(job, "champion")
    for folder in (job.folder / "mlruns").glob("*/models/*/artifacts/artifacts"):
        shutil.rmtree(folder)
    tags = job.client.get_model_version(NAME, "1").tags
    shutil.rmtree(job.folder / "models" / f"{tags['variant']}-{tags['seed']}")
    lost = "digits: the files of version 1, champion, were deleted, and its model is not in models: "
    assert f"sync: {lost}`make promote FORCE=1` replaces it\n" in say(job, "sync")
