"""The shell examples of README.md and docs/using.md run as printed; a clone gets the results untrained."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from PIL import Image

from pipeline.commands.quickstart import PARAMS
from tests.called import call
from tests.conftest import Clone, add_environment, copy_checkout
from tests.docs import examples
from tests.projects import Project
from tests.servers import s3_server

QUICKSTART, ACTIVATE, TEST, REPRO = README = examples("README.md", "bash", count=4)
QUEUE, COMPARE, CLASSIFY, DEMO, SHARE = USING = examples("docs/using.md", "bash", count=5)
[CLASSIFIED] = examples("docs/using.md", "", count=1)
NOT_RUN_HERE = {  # the others are run below
    QUICKSTART: "the fixture `clone` runs it",
    TEST: "runs this test",
    REPRO: "trains on CIFAR-10 for hours",
    QUEUE: "takes minutes: tests/commands/test_dvc_experiments.py",
    COMPARE: "needs the experiments of the block before: tests/commands/test_dvc_experiments.py",
    DEMO: "does not end: tests/commands/test_demo.py",
}
assert {ACTIVATE, CLASSIFY, SHARE} | NOT_RUN_HERE.keys() == {*README, *USING}
ME = {f"GIT_{who}_{what}": "me@here" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def share(clone: Clone, folder: Path, command: str, **more: str) -> Clone:
    """A clone of a repository in which the quickstart's params.yaml is the job's, after `dvc pull`.

    Its MLflow store is empty: what it has was pushed by this command.
    """
    quickstart = clone.folder / "quickstart"
    sender, receiver = Clone(folder / "sender"), Clone(folder / "receiver")
    copy_checkout(sender.folder)
    shutil.copy(PARAMS, sender.folder / "params.yaml")
    shutil.copy(quickstart / "dvc.lock", sender.folder)
    shutil.copytree(quickstart / ".dvc/cache", sender.folder / ".dvc/cache")
    sender.run("git", "add", "--all")
    sender.run("bash", "-euc", command, more=ME | more)
    receiver.folder.mkdir()
    receiver.run("git", "clone", "--quiet", str(sender.folder), ".")
    receiver.run("dvc", "pull", more=more)
    return receiver


@pytest.fixture(scope="module")
def received(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Such a clone, pulled from a folder."""
    folder = tmp_path_factory.mktemp("share")
    receiver = share(clone, folder, SHARE.replace("s3://bucket/path", str(folder / "storage")))
    add_environment(receiver.folder)
    return receiver


@pytest.mark.system
def test_results_are_shared_through_s3_as_it_is_printed(clone: Clone, tmp_path: Path) -> None:
    with s3_server(tmp_path) as s3:
        receiver = share(clone, tmp_path, SHARE, **s3)
    report = "reports/report.md"
    assert (receiver.folder / report).read_bytes() == (clone.folder / "quickstart" / report).read_bytes()


@pytest.fixture(scope="module")
def synced(received: Clone) -> str:
    """What `make sync` prints in the clone."""
    return received.run("make", "sync").stdout


def test_a_clone_gets_runs_champion_and_report_and_trains_nothing(
    clone: Clone, received: Clone, synced: str
) -> None:
    quickstart = Project(clone.folder / "quickstart", {"MLFLOW_TRACKING_URI": clone.store})
    copy = Project(received.folder)
    assert " epoch " not in synced
    with Repo(copy.folder) as repo:
        assert repo.status() == {}  # nothing would run
    for name in ("reports/report.md", "reports/report.html"):
        assert (copy.folder / name).read_bytes() == (quickstart.folder / name).read_bytes()
    before = {str(run.info.run_name): run for run in quickstart.runs()}
    after = {str(run.info.run_name).removesuffix(" (restored)"): run for run in copy.runs()}
    assert sorted(after) == ["report", "shallow-0", "shallow_subset-0", "speedrun-0"]
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    for name in after.keys() - {"report"}:
        for key in ("test/accuracy", "val_loss", "best_epoch", "validation/accuracy"):
            assert after[name].data.metrics[key] == pytest.approx(before[name].data.metrics[key])
        for tag in ("params_digest", "data_digest", "split_digest", "code_digest", "model_digest"):
            assert after[name].data.tags[tag] == before[name].data.tags[tag]
        assert copy.steps(after[name]) == quickstart.steps(before[name]) != []
    champions = [one.client.get_model_version_by_alias("digits", "champion") for one in (quickstart, copy)]
    assert len({champion.tags["model_digest"] for champion in champions}) == 1
    assert call(copy.folder, "sync").out.startswith("sync: nothing was missing\n")


def test_the_environment_is_activated_as_it_is_printed(received: Clone) -> None:
    assert "Commands around them" in received.run("bash", "-euc", ACTIVATE).stdout


def call_as_printed(folder: Path, command: str) -> str:
    """What a command of the pipeline prints that ends well."""
    done = call(folder, *shlex.split(command.removeprefix("python -m pipeline ")))
    assert (done.error, done.err) == (None, "")
    return done.out


@pytest.mark.usefixtures("synced")
@pytest.mark.parametrize("command", CLASSIFY.splitlines())
def test_classify_runs_as_it_is_printed(received: Clone, command: str) -> None:
    for name in ("cat.jpg", "photos/1.png", "more/2.png"):
        (received.folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 32), "red").save(received.folder / name)
    assert "%" in call_as_printed(received.folder, command)


@pytest.mark.usefixtures("synced")
def test_classify_prints_what_the_page_shows(received: Clone) -> None:
    command, *shown = CLASSIFIED.removeprefix("$ ").splitlines()
    printed = call_as_printed(received.folder, command).splitlines()
    assert re.sub(r"[\d.]+ nats", "", printed[0]) == re.sub(r"[\d.]+ nats", "", shown[0])
    assert [len(line) for line in printed[1:]] == [len(line) for line in shown[1:]]
