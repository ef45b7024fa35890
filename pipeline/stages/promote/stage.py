"""Promote the chosen model in MLflow's registry.

    python -m pipeline promote [--force]

Registers the model that `select` chose and makes it champion, unless the gate refuses it: see gate.py. Reads
params.yaml (promotion, serving), selection.json, recipes, data/prepared/{split,ids,validation}, and the
models of the chosen variant with their predictions. Describes the version by the model card, if `report` has
written it. Writes no file: the registry alone says what is served.
"""

import math

import click
import numpy as np

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.core.recipe import Recipe
from pipeline.params import Block, Params
from pipeline.shared.checked_scores import measured_by
from pipeline.shared.selection import Selection, read_selection
from pipeline.shared.served_predictor import served_predictor
from pipeline.shared.stored_probabilities import ROUNDING, read_probabilities
from pipeline.stages.promote import packaging
from pipeline.stages.promote.gate import Candidate, Standing
from pipeline.stages.promote.promotion import described_by, promote, refresh
from pipeline.stages.promote.registration import is_intact
from pipeline.support import mlflow_aliases, mlflow_registry, mlflow_runs, mlflow_store
from pipeline.support.errors import PipelineError, printable
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.mlflow_outputs import describe_versions
from pipeline.support.mlflow_registry import CHAMPION, PREVIOUS
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.paths import MODELS, PREDICTIONS, PREPARED, RECIPES, SELECTION

CHECKED = 32  # validation images whose served answers are compared with the predictions


@click.command(cls=SingleInstance)
@click.option(
    "--force", is_flag=True, help="Also a former champion, or one that is not better than the champion."
)
def main(force: bool) -> None:
    """Make the chosen model champion."""
    params = Params.read()
    mlflow_store.check()
    check_inputs(SELECTION)
    print("\n".join(map(printable, promote_selection(read_selection(), params, force))))
    describe_versions(params.data.dataset)


def promote_selection(selection: Selection, params: Params, force: bool = False) -> list[str]:
    """Make the chosen model champion, if the gate accepts it. Returns what was done, in lines.

    Raises PipelineError if it was chosen by other scores than its own, or by another metric.
    """
    candidate = candidate_of(selection, params)
    if selection.metric != params.promotion.metric:
        raise PipelineError(f"{SELECTION}: was chosen by {selection.metric}: run `dvc repro select`")
    check_scores(selection)
    return promote(candidate, params.promotion.margin, force)


def restore(name: str, params: Params) -> list[str]:
    """Register the models of both aliases again if their files were deleted. Returns what was done, in lines.

    An alias moves to the new version of the same model, so a person's decision stands.
    """
    lines, ways = [], {CHAMPION: "`make promote FORCE=1` replaces it", PREVIOUS: "it cannot be restored"}
    for alias, way in ways.items():
        with mlflow_aliases.one_at_a_time(name):
            version = mlflow_registry.version_at(name, alias)
            if version is None or is_intact(version):
                continue
            standing, _ = described_by(version)
            if standing and is_here(standing):
                lines.append(refresh(candidate_of(selection_of(standing), params), version, alias))
            else:
                what = f"the files of version {version.version}, {alias}, were deleted"
                lines.append(f"{name}: {what}, and its model is not in {MODELS}: {way}")
    return lines


def is_here(standing: Standing) -> bool:
    """Whether the model of a version is still among the trained ones."""
    files = ModelFiles(standing.variant, standing.seed)
    if not files.model.is_file() or files.tags()["model_digest"] != standing.model_digest:
        return False
    return is_of_this_split(files)


def is_of_this_split(files: ModelFiles) -> bool:
    """Whether a model was trained on data/prepared, and not on images that were there before."""
    return files.record().tags.get("split_digest") == read_facts(PREPARED / "split")["split_digest"]


def selection_of(standing: Standing) -> Selection:
    """The selection from which a version was promoted, without its runner-up."""
    known = standing.model_dump(include=set(Selection.model_fields), exclude_none=True)
    return Selection(**{"mean_validation_score": standing.validation_score, "runner_up": None} | known)


def candidate_of(selection: Selection, params: Params) -> Candidate:
    """A chosen model, with what is needed to register it.

    Raises PipelineError if the files are not of the model that was chosen.
    """
    files = selection.files
    check_inputs(RECIPES, files.folder, files.predictions)
    check_inputs(*(PREPARED / part for part in ("split", "ids", "validation")))
    if files.tags()["model_digest"] != selection.model_digest:
        raise PipelineError(f"{files.model}: is not the model that was chosen: run `dvc repro select`")
    facts, served = read_facts(PREPARED / "split"), served_predictor(files, params.serving.temperature)
    run = mlflow_runs.find_run(facts["name"], files.tags())
    logged = mlflow_runs.logged_model(run.info.run_id, files.name) if run else None
    validation, ids = read_arrays(PREPARED / "validation"), read_arrays(PREPARED / "ids")
    margin_metric = "accuracy" if selection.metric == "accuracy" else "balanced_accuracy"
    some = slice(min(CHECKED, params.serving.batch_limit))
    return Candidate(
        registered_name=facts["name"],
        run_id=run.info.run_id if run else None,
        model_id=logged.model_id if logged else None,
        model=files.model,
        images=validation["images"][some],
        probabilities=served.probabilities("validation")[some],
        validation=validation | {"ids": ids["validation"]},
        training_ids=read_by_training(files, ids["train"]),
        other_images=any(block.start and block.start.model for block in blocks_of(files.variant, params)),
        classes=facts["classes"],
        serving=packaging.Serving(
            batch_limit=params.serving.batch_limit,
            fit=facts["fit"],
            views=served.views,
            temperature=served.temperature.best,
            refuse_below=params.serving.refuse_below,
        ),
        tags=files.tags() | {key: facts[key] for key in ("data_digest", "split_digest")},
        metric=selection.metric,
        validation_score=selection.validation_score,
        mean_validation_score=selection.mean_validation_score,
        seeds=selection.seeds,
        margin_metric=margin_metric,
        margin_score=validation_score(files, margin_metric),
        validation_accuracy=selection.validation_accuracy,
        test_accuracy=selection.test_accuracy,
    )


def read_by_training(files: ModelFiles, ids: np.ndarray) -> np.ndarray:
    """The ids of the images that a model, and the one that it started from, were trained on.

    `ids` are those of all training images. Raises PipelineError if the model was trained on another split.
    """
    if not is_of_this_split(files):
        raise PipelineError(f"{files.model}: was trained on another split: run `dvc repro select`")
    recipe = Recipe.read(files.variant)
    own, base = ids[: recipe.settings.training_images], recipe.base(files.seed)
    return own if base is None else np.union1d(own, read_by_training(base, ids))


def blocks_of(variant: str, params: Params) -> list[Block]:
    """The block of a variant, and that of the variant that it is fine-tuned from."""
    own = params.finetune.variants.get(variant)
    found = (
        [params.variants.get(variant)]
        if own is None
        else [own, params.variants[str(params.finetune.init_from)]]
    )
    return [block for block in found if block]


def check_scores(selection: Selection) -> None:
    """Raise PipelineError if the scores that decided are not those of the stored probabilities."""
    check_inputs(RECIPES)
    seeds = [one for one in all_models() if one.variant == selection.variant]
    check_inputs(*(path for one in seeds for path in (one.folder, one.predictions)))
    trained = [one for one in seeds if one.record().divergence is None]
    scores = {one.seed: validation_score(one, selection.metric) for one in trained}
    mean = sum(scores.values()) / len(scores) if scores else math.nan
    found = (len(scores), scores.get(selection.seed, math.nan), mean)
    stored = (selection.seeds, selection.validation_score, selection.mean_validation_score)
    if not np.allclose(stored, found, rtol=0, atol=ROUNDING):
        raise PipelineError(
            f"{SELECTION}: seeds, score and mean score are {stored}, but {PREDICTIONS} give {found}: "
            "run `dvc repro select`"
        )


def validation_score(files: ModelFiles, metric: str) -> float:
    """A metric of a model's stored probabilities for validation images."""
    labels = read_arrays(PREPARED / "validation")["labels"]
    return measured_by(metric)(labels, read_probabilities(files, "validation"))[metric]
