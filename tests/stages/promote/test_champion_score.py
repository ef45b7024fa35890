"""Whether a champion is compared after its photographs changed, from the files to the registry."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.called import call
from tests.projects import Project, copied, prepared, small_params

NAME = "pets"
SCORED = ("predict shallow 0", "evaluate", "select", "promote")


def photograph(job: Path, numbers: range) -> None:
    """Add photographs, each with a content of its own, of two classes that are easily told apart."""
    for name, colour in (("dark", 40), ("light", 200)):
        (job / "photos" / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            pixels = np.full((16, 16, 3), colour, np.uint8)
            pixels[:2] = [[[number]], [[120]]]
            Image.fromarray(pixels).save(job / f"photos/{name}/{number}.png")


def changed(job: Project, **sections: dict[str, object]) -> str:
    """What `promote` says after all stages ran again, with these changes of params.yaml."""
    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    for name, changes in sections.items():
        params[name] |= changes
    (job.folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("fetch", "prepare", "recipes", "train shallow 0", *SCORED):
        done = call(job.folder, *stage.split())
        assert done.error is None, done
    return done.out


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A job with a champion, whose validation images are drawn by their content."""
    home = tmp_path_factory.mktemp("home")
    photograph(home, range(40))
    data = {"source": "directory", "name": NAME, "folders": {"all": str(home / "photos")}, "image_size": 32}
    params = small_params(shallow={"epochs": 2, "batch_size": 4}) | {"data": data, "promotion": {"margin": 0}}
    params["split"] = {"strategy": "content", "fraction": 0.3, "seed": 0}
    job = prepared(home / "job", params)
    for stage in ("train shallow 0", *SCORED):
        done = call(job.folder, *stage.split())
    assert "is champion" in done.out
    return job


@pytest.fixture
def job(promoted: Project, tmp_path: Path) -> Project:
    """A copy of it and of its photographs."""
    shutil.copytree(promoted.folder.parent / "photos", tmp_path / "photos")
    return copied(promoted, tmp_path / "job")


def test_photographs_may_be_added_and_removed(job: Project) -> None:
    photograph(job.folder.parent, range(40, 60))
    for path in job.folder.parent.glob("photos/*/1?.png"):
        path.unlink()
    printed = changed(job, data={"folders": {"all": str(job.folder.parent / "photos")}})
    assert " on the same images" in printed


def test_a_champion_that_was_trained_on_validation_images_is_not_compared(job: Project) -> None:
    printed = changed(job, split={"strategy": "stratified"})
    assert printed.startswith(f"{NAME}: not promoted: the champion cannot be scored on these validation ")
    assert " were among its training images; `make promote FORCE=1`" in printed
    assert "\n" not in printed.strip()


def test_a_model_of_former_images_is_not_promoted(job: Project) -> None:
    """For its version would name others than those that it was trained on."""
    photograph(job.folder.parent, range(40, 60))
    params = yaml.safe_load((job.folder / "params.yaml").read_text())
    params["data"]["folders"] = {"all": str(job.folder.parent / "photos")}
    (job.folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("fetch", "prepare", "recipes", "predict shallow 0", "evaluate", "select"):
        assert call(job.folder, *stage.split()).error is None
    refused = call(job.folder, "promote").refusal
    assert refused == "models/shallow-0/model.keras: was trained on another split: run `dvc repro select`"
