"""Own images: from photographs to a served model, as docs/own-images.yaml has it; and their edits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.quickstart import lay_out
from tests.conftest import ROOT
from tests.jobs import Job

pytestmark = pytest.mark.timeout(900)

SIZES = [(64, 48), (90, 120), (200, 150), (48, 48)]


def photograph(kind: str, random: np.random.Generator) -> Image.Image:
    """A coloured shape on a coloured ground, of one of several sizes."""
    width, height = SIZES[random.integers(len(SIZES))]
    ground, colour = (tuple(random.integers(low, low + 100, 3).tolist()) for low in (0, 150))
    image = Image.new("RGB", (width, height), ground)
    side = min(width, height) * random.uniform(0.6, 0.8)
    box = [(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2]
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse(box, fill=colour)
    elif kind == "bar":
        draw.rectangle([box[0], height * 0.42, box[2], height * 0.58], fill=colour)
    else:
        draw.rectangle(box, outline=colour, width=int(side / 6))
    return image


def lay_out_photographs(folder: Path, train: int, test: int) -> Job:
    """A folder with docs/own-images.yaml and so many photographs of each of three classes in each part."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for kind in ("disc", "bar", "frame"):
            (folder / "photos" / part / kind).mkdir(parents=True)
            for number in range(count):
                suffix = "jpg" if number % 2 else "png"
                photograph(kind, random).save(folder / "photos" / part / kind / f"{number}.{suffix}")
    lay_out(folder, (ROOT / "docs/own-images.yaml").read_text())
    return Job(folder)


def read(job: Job, path: str) -> Any:
    return json.loads((job.folder / path).read_text())


@pytest.mark.faults  # half a minute of CPU time
def test_photographs_become_a_served_champion_and_a_report(tmp_path: Path) -> None:
    made = lay_out_photographs(tmp_path, train=45, test=15)
    made.run("dvc", "repro")
    facts = read(made, "data/prepared/split/manifest.json")["facts"]
    assert (facts["image_shape"], facts["classes"]) == ([48, 48, 3], ["bar", "disc", "frame"])
    assert facts["counts"] == {"train": 108, "validation": 27, "test": 45}
    champion = read(made, "champion.json")
    scores = read(made, f"metrics/{champion['variant']}-{champion['seed']}.json")
    assert scores["test"]["accuracy"] > 0.6
    report = (made.folder / "reports/report.md").read_text()
    assert all(word in report for word in ("# Results on mine", "| augmented |", "| vgg3 |"))
    photograph = next((made.folder / "photos/test/disc").iterdir())
    [answer] = json.loads(made.run("python", "-m", "pipeline.classify", "--json", str(photograph)))
    assert set(answer["probabilities"]) == {"bar", "disc", "frame"}


def test_every_edit_of_a_photograph_is_noticed(tmp_path: Path) -> None:
    job = lay_out_photographs(tmp_path, train=4, test=2)
    job.run("dvc", "repro", "fetch")
    folder = job.folder / "photos/train/disc"
    for edit, expected in (
        (lambda: photograph("disc", np.random.default_rng(7)).save(folder / "new.png"), 13),
        (lambda: (folder / "0.png").unlink(), 12),
        (lambda: photograph("disc", np.random.default_rng(8)).save(folder / "2.png"), 12),
    ):
        before = (job.folder / "data/raw/train_images.npy").read_bytes()
        edit()
        job.run("dvc", "repro", "fetch")
        assert (job.folder / "data/raw/train_images.npy").read_bytes() != before
        assert read(job, "data/raw/manifest.json")["arrays"]["train_labels"]["shape"] == [expected]
    (folder / "empty.png").touch()
    assert "watch@train" in job.run("dvc", "status")
    assert "images that cannot be read: photos/train/disc/empty.png" in job.run(
        "dvc", "repro", "fetch", check=False
    )
