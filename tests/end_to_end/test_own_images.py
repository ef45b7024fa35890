"""Own images: from photographs to a served model, as docs/own-images.yaml has it; and their edits."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.commands.job_folder import lay_out
from tests.called import call
from tests.conftest import ROOT, git
from tests.processes import wait_for
from tests.projects import Project, commit, keep_stages

KINDS = ("red", "green", "blue")
SIZES = [(48, 64), (120, 90), (150, 200), (48, 48)]


def photograph(kind: str, random: np.random.Generator) -> Image.Image:
    """Noise of one of several sizes, in which one colour is the brightest."""
    pixels = random.integers(0, 128, (*SIZES[random.integers(len(SIZES))], 3), np.uint8)
    pixels[..., KINDS.index(kind)] += 127
    return Image.fromarray(pixels)


def lay_out_photographs(folder: Path, train: int, test: int) -> Project:
    """A folder with docs/own-images.yaml and so many photographs of each of three classes in each part."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for kind in KINDS:
            (folder / "photos" / part / kind).mkdir(parents=True)
            for number in range(count):
                suffix = "jpg" if number % 2 else "png"
                photograph(kind, random).save(folder / "photos" / part / kind / f"{number}.{suffix}")
    lay_out(folder, (ROOT / "docs/own-images.yaml").read_text())
    return Project(folder)


def read(job: Project, path: str) -> Any:
    return json.loads((job.folder / path).read_text())


@pytest.mark.faults  # half a minute of CPU time
def test_photographs_become_a_served_champion_and_a_report(tmp_path: Path) -> None:
    made = lay_out_photographs(tmp_path, train=45, test=15)
    made.run("dvc", "repro")
    facts = read(made, "data/prepared/split/manifest.json")["facts"]
    assert (facts["image_shape"], facts["classes"]) == ([48, 48, 3], sorted(KINDS))
    assert facts["counts"] == {"train": 108, "validation": 27, "test": 45}
    champion = read(made, "selection.json")
    scores = read(made, f"metrics/{champion['variant']}-{champion['seed']}.json")
    assert scores["test"]["accuracy"] > 0.6
    report = (made.folder / "reports/report.md").read_text()
    assert all(word in report for word in ("# Results on mine", "| augmented ", "| vgg3 "))
    for line in (made.folder / "reports/misclassified.csv").read_text().splitlines()[1:]:
        part, name, label, *_, model = line.split(",")
        kept = "test" if part == "test" else "train"
        assert (name.split("/")[:2], model) == ([kept, label], f"{champion['variant']}-{champion['seed']}")
        assert (made.folder / "photos" / name).is_file()
    photograph = next((made.folder / "photos/test/red").iterdir())
    [answer] = json.loads(made.run("python", "-m", "pipeline", "classify", "--json", str(photograph)))
    assert set(answer["probabilities"]) == set(KINDS)


def test_every_edit_of_a_photograph_is_noticed(tmp_path: Path) -> None:
    job = lay_out_photographs(tmp_path, train=4, test=2)
    job.run("dvc", "repro", "fetch")
    folder = job.folder / "photos/train/red"
    for edit, expected in (
        (lambda: photograph("red", np.random.default_rng(7)).save(folder / "new.png"), 13),
        (lambda: (folder / "0.png").unlink(), 12),
        (lambda: photograph("red", np.random.default_rng(8)).save(folder / "2.png"), 12),
    ):
        before = (job.folder / "data/raw/train_images.npy").read_bytes()
        edit()
        job.run("dvc", "repro", "fetch")
        assert (job.folder / "data/raw/train_images.npy").read_bytes() != before
        assert read(job, "data/raw/manifest.json")["arrays"]["train_labels"]["shape"] == [expected]
    (folder / "empty.png").touch()
    assert "watch@train" in job.run("dvc", "status")
    assert "images that cannot be read: photos/train/red/empty.png" in job.run(
        "dvc", "repro", "fetch", check=False
    )


@pytest.mark.faults
def test_a_queued_experiment_needs_the_photographs_that_git_does_not_have(tmp_path: Path) -> None:
    """As docs/using.md says: with --copy-paths, or after `dvc add`."""
    job = lay_out_photographs(tmp_path, train=6, test=2)
    shutil.rmtree(job.folder / ".dvc")
    keep_stages(job.folder, "watch", "fetch", "prepare")
    (job.folder / ".gitignore").write_text((ROOT / ".gitignore").read_text() + "/photos\n")
    commit(job.folder)

    def queue(name: str, *options: str) -> None:
        job.run("dvc", "exp", "run", "--queue", "--name", name, "-S", "data.image_size=40", *options)

    queue("without")
    queue("copied", "--copy-paths", "photos")
    (job.folder / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    job.run("dvc", "add", "--quiet", "photos")
    git(["add", "--all"], job.folder)
    git(["commit", "--quiet", "--message=photos"], job.folder)
    queue("added")
    job.run("dvc", "queue", "start")
    wait_for(lambda: not re.search("Queued|Running", job.run("dvc", "queue", "status")))
    ended = re.findall(r"(\w+) +\S+ [AP]M +(\w+)", job.run("dvc", "queue", "status"))
    assert dict(ended) == {"without": "Failed", "copied": "Success", "added": "Success"}


def test_a_pipe_among_the_photographs_is_refused_before_dvc_waits_for_it(tmp_path: Path) -> None:
    job = lay_out_photographs(tmp_path, train=1, test=1)
    os.mkfifo(job.folder / "photos/test/pipe.png")
    refused = call(job.folder, "plan").refusal
    assert refused.startswith("neither files nor folders")
    assert refused.endswith(": photos/test/pipe.png")


def test_test_images_among_the_training_images_are_refused_unless_they_are_wanted(tmp_path: Path) -> None:
    folder = lay_out_photographs(tmp_path, train=6, test=6).folder
    for number in range(3):
        shutil.copy(folder / "photos/train/red/0.png", folder / f"photos/test/blue/copy{number}.png")
        shutil.copy(folder / "photos/train/blue/2.png", folder / f"photos/train/blue/copy{number}.png")
    assert call(folder, "fetch").error is None
    refused = call(folder, "prepare").refusal
    line, pairs = "3 test images also in training: ", refused.split(": ")[2].split("; ")
    assert refused.startswith(f"data/raw: {line}")
    assert set(pairs) == {f"test/blue/copy{number}.png is train/red/0.png" for number in range(3)}
    assert not (folder / "data/prepared").exists()
    params = (folder / "params.yaml").read_text()
    warn = "split: {strategy: stratified, fraction: 0.5, seed: 0, duplicates: warn}"
    (folder / "params.yaml").write_text(re.sub("split: {.*}", warn, params))
    warned, other = call(folder, "prepare").out.splitlines()[:2]
    found = read(Project(folder), "data/prepared/split/manifest.json")["facts"]["duplicates"]
    assert (found["training"], found["test"]) == (3, 3)
    assert warned == f"prepare: warning: {line}{'; '.join(pairs)}"
    both = found["training_and_validation"]
    assert re.fullmatch(f"prepare: warning: {both} validation images? also in training", other)
