"""What is said of the champion is what is served: promote, rollback, sync and DVC's run cache together."""

import json
import re
from pathlib import Path

import mlflow
import pytest
import yaml

from pipeline.stages.promote import serving_check
from pipeline.support import mlflow_aliases
from tests.called import call, this_process
from tests.conftest import Clone
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
    assert "forced" in say(job, "champion")

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
