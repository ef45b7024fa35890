"""Keys of checkpoints and results: digests of what decides a training, or the predictions of its model."""

from pathlib import Path

import yaml

from pipeline.core.arrays import read_facts
from pipeline.core.recipe import Recipe
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.model_files import ModelFiles
from pipeline.support.paths import PREPARED

ROOT = Path(__file__).parents[2]


def training_tags(files: ModelFiles, recipe: Recipe, start: Path | None, code: str) -> dict[str, str]:
    """The tags that identify what decides a training's weights; their digest is its key.

    `start` is the model file whose weights it starts with, `code` the digest of the stage's modules.
    """
    facts = read_facts(PREPARED / "split")
    base = {} if start is None else {"init_from": file_digest(start)}
    return {
        "variant": files.variant,
        "seed": str(files.seed),
        "params_digest": digest_of(recipe.content() | base),
        "data_digest": facts["data_digest"],
        "split_digest": facts["split_digest"],
        "code_digest": code,
    }


def prediction_key(model: Path, recipe: Recipe, code: str) -> str:
    """The digest of what decides a model's predictions."""
    split = read_facts(PREPARED / "split")["split_digest"]
    return digest_of([file_digest(model), recipe.threads, recipe.settings.views, split, code])


def code_digests() -> dict[str, str]:
    """The digests of the modules of both stages, by the stage."""
    return {stage: code_digest(stage) for stage in ("train", "predict")}


def code_digest(stage: str) -> str:
    """A digest of the modules that dvc.yaml lists for a stage."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = [ROOT / name for name in stages[stage]["deps"] if name.startswith("pipeline/")]
    modules = {path for item in listed for path in ([item] if item.suffix else item.rglob("*.py"))}
    return digest_of({path.relative_to(ROOT).as_posix(): file_digest(path) for path in modules})
