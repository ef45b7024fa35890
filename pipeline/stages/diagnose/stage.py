"""Look for weak points of the data and of the chosen model.

    python -m pipeline diagnose

Reads params.yaml (published, serving, training.threads), selection.json, data/prepared, models and
predictions. Writes diagnosis/: the tables `training_accuracy`, of each model's kept weights, and
`resemblance`, how many images resemble others; a table and a figure each: `near_duplicates` between training,
validation and test images; `label_errors`, test labels that the chosen model contradicts; `robustness` of the
chosen model and of the best other variant, a published one if there is any, on corrupted test images. The
last two are of models as they are served. Nothing is chosen from its results.
"""

import shutil

import click
import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from pipeline.core.arrays import read_arrays, read_facts
from pipeline.params import Params
from pipeline.shared.image_names import image_names
from pipeline.shared.selection import read_selection
from pipeline.shared.served_predictor import ServedPredictor, served_predictor
from pipeline.shared.stored_probabilities import read_right
from pipeline.stages.diagnose import diagnosis_figures
from pipeline.stages.diagnose.near_duplicates import fingerprints, near_duplicates, resemblance
from pipeline.stages.diagnose.robustness import robustness
from pipeline.support.integrity import check_inputs
from pipeline.support.locks import SingleInstance
from pipeline.support.model_files import ModelFiles, all_models
from pipeline.support.new_files import write_figure, write_table
from pipeline.support.paths import DIAGNOSIS, MODELS, PREDICTIONS, PREPARED, RECIPES, SELECTION
from pipeline.support.words import count

PARTS = ("train", "validation", "test")
IMAGES = 2_000  # the test images on which robustness is measured
# If a model has test-time views, it predicts each image and corruption up to six times. For `speedrun`, 500
# images then take 164 CPU seconds; 2,000 would take 656, or 114 with one view (AMD EPYC, family 25, model 17,
# one thread in float32; measured on 200).
WITH_VIEWS = 500
MOSTLY_RIGHT = 0.5  # the accuracy of a model that may call labels suspicious


@click.command(cls=SingleInstance)
def main() -> None:
    """Find near duplicates and suspicious labels, and measure robustness."""
    params = Params.read()
    check_inputs(
        SELECTION, MODELS, PREDICTIONS, RECIPES, *(PREPARED / part for part in ("split", "names", *PARTS))
    )
    chosen, data = read_selection().files, {part: read_arrays(PREPARED / part) for part in PARTS}
    shown = [chosen, *rival(chosen, params.published)]
    models = [served_predictor(one, params.serving.temperature) for one in shown]
    some = WITH_VIEWS if any(one.views for one in models) else IMAGES
    images, labels = {part: arrays["images"] for part, arrays in data.items()}, data["test"]["labels"]
    classes = read_facts(PREPARED / "split")["classes"]

    prints = {part: fingerprints(these) for part, these in images.items()}
    alike = named(near_duplicates(images, prints))
    suspicious = label_errors(labels, models[0].probabilities("test"), classes)
    suspicious.insert(0, "image", image_names("test")[suspicious["index"]])
    prepare_backend(params.training.threads)
    accuracies = try_models(models, images["test"][:some], labels[:some])

    shutil.rmtree(DIAGNOSIS, ignore_errors=True)
    write_table(DIAGNOSIS / "training_accuracy.csv", training_accuracies())
    write_table(DIAGNOSIS / "resemblance.csv", resemblance(alike, prints))
    for name, table, figure in (
        ("near_duplicates", alike, diagnosis_figures.pairs(alike, images)),
        ("label_errors", suspicious, diagnosis_figures.suspicious(suspicious, images["test"])),
        ("robustness", accuracies, diagnosis_figures.robustness(accuracies)),
    ):
        write_table(DIAGNOSIS / f"{name}.csv", table)
        write_figure(DIAGNOSIS / f"{name}.png", figure)
    pairs = count(int((alike["part"] == "test").sum()), "near duplicate")
    print(f"diagnose: {pairs} and {count(len(suspicious), 'suspicious label')} among the test images")


def rival(chosen: ModelFiles, published: dict[str, float]) -> list[ModelFiles]:
    """The best model of another variant, by validation accuracy; published variants come first."""
    models = [one for one in all_models() if one.record().divergence is None]
    others = [one for one in models if one.variant != chosen.variant]
    known = [one for one in others if one.variant in published] or others
    return sorted(known, key=lambda one: read_right(one, "validation").mean(), reverse=True)[:1]


def named(pairs: pd.DataFrame) -> pd.DataFrame:
    """Near duplicates with what both images are called, `image` and `of_image`."""
    names = {part: image_names(part) for part in PARTS}
    called = {
        column: [names[part][index] for part, index in zip(pairs[of], pairs[number], strict=True)]
        for column, of, number in (("image", "part", "index"), ("of_image", "of_part", "of_index"))
    }
    return pairs.assign(**called)


def label_errors(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Images whose labels (n,) a model's probabilities (n, classes) contradict, the most suspicious first.

    By confident learning (Northcutt, Jiang and Chuang, 2021). The model must not have been trained on them.
    None are suspicious if it contradicts most of them, since then the mistakes are its own.
    A row for each: its number, `index`, its `label`, what is `predicted`, and the label's `probability`.
    """
    probabilities = np.asarray(probabilities)
    rows = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    if (probabilities.argmax(axis=1) == labels).mean() < MOSTLY_RIGHT:
        rows = rows[:0]
    return pd.DataFrame(
        {
            "index": rows,
            "label": [classes[label] for label in labels[rows]],
            "predicted": [classes[label] for label in probabilities[rows].argmax(axis=1)],
            "probability": probabilities[rows, labels[rows]],
        }
    )


def prepare_backend(threads: int) -> None:
    """Start TensorFlow, with so many threads and the same results in each process."""
    from pipeline.core.hardware import make_deterministic

    make_deterministic(0, threads)


def try_models(models: list[ServedPredictor], images: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The robustness of each model, one after another."""
    from pipeline.core import keras_file  # TensorFlow

    return pd.concat(
        robustness(keras_file.load(one.files.model), images, labels, one.views).assign(model=one.files.name)
        for one in models
    )


def training_accuracies() -> pd.DataFrame:
    """For each model that did not diverge, its `accuracy` on the first training images and their number.

    It is that of the kept weights without dropout and augmentation, as validation images are scored.
    """
    right = {one.name: read_right(one, "train") for one in all_models() if one.record().divergence is None}
    return pd.DataFrame(
        {
            "model": list(right),
            "accuracy": [values.mean() for values in right.values()],
            "images": [len(values) for values in right.values()],
        }
    )
