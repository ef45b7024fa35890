"""`python -m pipeline photos`: from a folder of images to settings that suit it, and to a served model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.commands import photos
from pipeline.params import Params
from tests.called import call
from tests.conftest import Clone, copy_checkout
from tests.projects import prepared

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "grau": (90, 90, 90), "red": (200, 30, 20)}
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    (".png", {}),
    (".jpg", {}),
    (".webp", {}),
    (".JPG", {"exif": Image.Exif()}),
)


def draw(folder: Path, images: int, size: int = 40) -> Path:
    """Images of four classes in several formats and sizes, in which one colour is the brightest."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(images):
            suffix, options = KINDS[number % len(KINDS)]
            shape = (size + number % 3, size + number % 5, 3)
            pixels = np.clip(random.normal(colour, 30, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}{suffix}", **options)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Enough images of each class, of which one in twenty is broken."""
    folder = draw(tmp_path / "my pets", 20)
    for name in COLOURS:
        path = folder / name / "3.JPG"
        path.write_bytes(path.read_bytes()[:100])
    return folder


def settings(folder: Path) -> tuple[Params, str]:
    """The params.yaml that suits a folder, and its text."""
    written = photos.params_for("pets", photos.survey(folder))
    (folder.parent / "params.yaml").write_text(written)
    return Params.read(folder.parent / "params.yaml"), written


def test_the_settings_suit_the_images_and_every_network_can_be_built(folder: Path, tmp_path: Path) -> None:
    params, written = settings(folder)
    assert (params.data.image_size, params.split.strategy, params.data.folders) == (
        32,
        "content",
        {"all": str(folder)},
    )
    assert {block.batch_size for block in params.variants.values()} == {16}
    assert {block.class_weight for block in params.variants.values()} == {None}
    assert params.promotion.metric == "accuracy"
    job = prepared(tmp_path / "job", yaml.safe_load(written))
    facts = json.loads((job.folder / "data/prepared/split/manifest.json").read_text())["facts"]
    assert sum(facts["counts"].values()) == 4 * 19


def test_uneven_classes_weigh_the_same_and_large_images_are_larger(tmp_path: Path) -> None:
    for part in ("train", "test"):
        draw(tmp_path / "pets" / part, 16, size=100)
    for number in range(12):
        (tmp_path / f"pets/train/red/{number}{KINDS[number % 4][0]}").unlink()
    params, _ = settings(tmp_path / "pets")
    assert params.data.image_size == 96
    assert params.data.folders == {part: str(tmp_path / "pets" / part) for part in ("train", "test")}
    assert {block.class_weight for block in params.variants.values()} == {"balanced"}
    assert params.promotion.metric == "balanced_accuracy"


def test_what_cannot_become_a_job_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        line = call(tmp_path, "photos", *words).refusal
        assert not (tmp_path / "jobs").exists()
        return line

    assert refused(str(folder), "--name", "a/b").startswith(
        "--name: must be a letter or digit and at most 99"
    )
    (folder / "empty").mkdir()
    assert refused(str(folder)) == f"{folder}: each class needs 10 images; empty has 0"
    assert "two or more folders, one for each class" in refused(str(folder / "red"))
    assert refused(str(tmp_path / "gone")) == f"{tmp_path}/gone: no such folder of images"


@pytest.mark.faults  # a minute of CPU time
def test_a_folder_becomes_a_served_model_and_a_jobs_own_settings_stay(folder: Path, tmp_path: Path) -> None:
    copy_checkout(tmp_path / "checkout")
    checkout = Clone(tmp_path / "checkout")
    kept = checkout.folder / "jobs/my-pets/params.yaml"
    kept.parent.mkdir(parents=True)
    mine = photos.params_for("my-pets", photos.survey(folder)).replace("epochs: 80", "epochs: 2") + "# mine\n"
    kept.write_text(mine)
    command = ["python", "-m", "pipeline", "photos"]
    printed = checkout.run(*command, str(folder)).stdout
    assert kept.read_text() == mine
    assert "photos: 80 images in " in printed
    assert "\n  grau   20\n" in printed
    assert "fetch: left out 4 images, which cannot be read: " in printed
    assert "epoch 2/2" in printed
    assert "\nDone. What to look at next:\n" in printed
    classify = next(line for line in printed.splitlines() if line.startswith("  classify "))
    assert "%" in checkout.run(*classify.split()[1:]).stdout

    other = draw(tmp_path / "elsewhere/my pets", 10)
    refused = checkout.run(*command, str(other), check=False)
    assert refused.stderr.startswith("error: jobs/my-pets already exists, with other images: choose ")
