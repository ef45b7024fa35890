"""DVC's kinds of cache other than copies: files are links into it, and other projects may share it.

With a `cache.dir` that two projects use, `dvc repro` of all stages, then each stage without DVC, which would
remove its outputs first.
"""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.support.integrity import check_everything
from tests.called import call
from tests.conftest import Clone, refusal
from tests.projects import Project, before_training, small_params
from tests.support.test_integrity import flip

MODEL = ("shallow", "0")
STAGES = {"fetch": (), "prepare": (), "recipes": (), "train": MODEL, "predict": MODEL} | dict.fromkeys(
    ("evaluate", "select", "promote", "diagnose", "report", "sync"), ()
)


def objects(cache: Path) -> dict[Path, tuple[bytes, int]]:
    """The objects of a cache: their content, and when they were written."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in cache.rglob("*") if path.is_file()}


def lend(job: Project, cache: Path, kind: str) -> None:
    """Let a project use this cache for its files."""
    for setting, value in (("type", kind), ("dir", str(cache))):
        job.run("dvc", "config", "--local", f"cache.{setting}", value)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_no_stage_writes_into_the_cache(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(clone.folder / "quickstart/.dvc/cache", cache)
    job = before_training(clone, tmp_path / "job", small_params(shallow={"epochs": 1}))
    lend(job, cache, kind)
    job.run("dvc", "checkout", "--relink", "fetch", "prepare")
    job.run("dvc", "repro")
    model = job.folder / "models/shallow-0/model.keras"
    assert (model.is_symlink(), model.lstat().st_nlink) == (kind == "symlink", 2 if kind == "hardlink" else 1)
    before = objects(cache / "files")
    for stage, arguments in STAGES.items():
        called = call(job.folder, stage, *arguments)
        assert called.error is None, called
        assert objects(cache / "files") == before, stage

    job.run("dvc", "repro")  # the new files are links again, if the old ones were
    monkeypatch.chdir(job.folder)
    theirs, md5 = cache / "files/md5/00" / ("0" * 30), job.outs()["selection.json"]
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("damaged")
    check_everything()
    flip(cache / "files/md5" / md5[:2] / md5[2:])
    [command] = re.findall("`(.*)`", refusal(check_everything))
    job.run("sh", "-c", command)
    check_everything()
    after = {path: content for path, (content, _) in objects(cache / "files").items()}
    assert after == {path: content for path, (content, _) in before.items()} | {theirs: b"damaged"}
