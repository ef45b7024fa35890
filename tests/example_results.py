"""Results of trainings that never ran, for the tests of the report."""

import re
from typing import Any

import numpy as np
import pandas as pd

from pipeline.shared import metrics
from pipeline.shared.selection import Selection
from pipeline.shared.served_predictor import Temperature
from pipeline.stages.report.correctness import Correctness
from pipeline.stages.report.results import Results, mean_scores, summarize
from pipeline.stages.select import choose
from pipeline.support.model_files import SERVED, ModelFiles

CLASSES = ["cat", "dog"]
COUNTS = {"train": 45000, "validation": 5000, "test": 10000}
PUBLISHED = {"vgg3": 0.7678, "model_s": 0.8155, "of_nobody": 0.5}
VALIDATION = {"vgg3": 0.76, "vgg3_early_stop": 0.77, "batchnorm": 0.70}
PARAMETERS = {"vgg3": 550570, "vgg3_early_stop": 550571}
SURE = np.eye(2) * 0.8 + 0.1  # probabilities of two images
DIGEST = "0123" * 16  # of every model
ODD = r"NA a|b a*b*c _a_ __b__ a__ <b>a a&amp;b `a` [a](b) a\b a\|b $5_to_$10 ~~a~~ ![a](b)"
ODD_NAMES = [*ODD.split(), "variant", "a\nb", " a "]


def diagnosis_of(name: str) -> dict[str, pd.DataFrame]:
    """What `diagnose` found with the model of this name."""
    copies = {"part": ["test", "validation"], "index": [3, 4], "of_part": "train", "of_index": [5, 6]}
    copies |= {"image": ["cat/3.jpg", "cat/4.jpg"], "of_image": ["cat/5.jpg", "cat/6.jpg"]}
    falling = {"corruption": ["noise", "noise", "blur", "blur"], "level": [0, 5, 0, 5]}
    return {
        "training_accuracy": pd.DataFrame({"model": [name], "accuracy": 0.9, "images": 2000}),
        "near_duplicates": pd.DataFrame(copies | {"similarity": 0.95, "difference": 4.0}),
        "resemblance": pd.DataFrame(
            {"part": ["test", "validation", "train"], "similar": [1, 1, 40], "images": [10000, 5000, 2000]}
        ),
        "label_errors": pd.DataFrame(
            {"image": ["cat/5.jpg"], "index": 5, "label": "cat", "predicted": "dog", "probability": 0.01}
        ),
        "robustness": pd.DataFrame(
            falling | {"model": name, "strength": 1.0, "accuracy": [0.75, 0.25, 0.75, 0.5], "images": 2000}
        ),
    }


def scores_of(seeds: int, validation: dict[str, float] = VALIDATION) -> pd.DataFrame:
    """What each training scored; seeds lie 0.01 apart, and test accuracy 0.02 under validation's."""
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "validation_accuracy": accuracy + 0.01 * (seed - (seeds - 1) / 2),
            "test_accuracy": accuracy - 0.02 + 0.01 * (seed - (seeds - 1) / 2),
            "test_served_accuracy": accuracy - 0.02 + 0.01 * (seed - (seeds - 1) / 2),
            "views_accuracy": 0.9 if variant == "vgg3" else float("nan"),
            "parameters": PARAMETERS.get(variant, 359242),
            "epochs": 10 + seed,
            "training_accuracy": 0.99 if variant == "vgg3" else accuracy + 0.01,
        }
        for variant, accuracy in validation.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def with_served(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores with one view, and the same ones as a model without views and temperature is served."""
    return scores | {f"{part}{SERVED}": values for part, values in scores.items()}


def history(epochs: int) -> pd.DataFrame:
    columns = ("accuracy", "val_accuracy", "loss", "val_loss")
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | {name: [0.5] * epochs for name in columns})


def per_class(classes: list[str]) -> pd.DataFrame:
    labels = np.resize(np.arange(len(classes)), 4 * len(classes))
    random = np.random.default_rng(0).dirichlet(np.ones(len(classes)), size=len(labels)).astype(np.float32)
    return metrics.per_class(labels, random, classes)


def pairs_of(*images: int) -> pd.DataFrame:
    """Pairs of classes a and b, c and d ... with so many confused images."""
    names = [chr(ord("a") + number) for number in range(2 * len(images))]
    counts = {"images": images, "one_as_other": images, "other_as_one": 0}
    return pd.DataFrame({"one": names[::2], "other": names[1::2]} | counts)


def results_of(
    seeds: int = 1, validation: dict[str, float] = VALIDATION, classes: list[str] = CLASSES, **facts: Any
) -> Results:
    scores = scores_of(seeds, validation)
    models = [
        ModelFiles(variant, seed) for variant, seed in zip(scores["variant"], scores["seed"], strict=True)
    ]
    names = [one.name for one in models]
    known: dict[str, Any] = {"name": "pets", "source": "cifar10", "classes": classes}
    known |= {"split_digest": "0123456789abcdef", "duplicates": {"training_and_validation": 0, "test": 0}}
    known |= {
        "image_shape": [32, 32, 3],
        "counts": {"train": 45000, "validation": 5000, "test": 10000},
    } | facts
    chosen, table = Selection(**choose(scores), model_digest=DIGEST), per_class(classes)
    return Results(
        facts=known,
        models=models,
        balance=pd.DataFrame({"class": classes, "train": 20, "validation": 5, "test": 5}),
        table=summarize(scores, PUBLISHED),
        scores=mean_scores(scores),
        settings={variant: {"optimizer": "adam", "batch_size": 32} for variant in validation},
        histories={name: history(3) for name in names},
        recall=pd.DataFrame([table["recall"]] * len(validation), index=pd.Index(validation)),
        f1=pd.DataFrame([table["f1"]] * len(validation), index=pd.Index(validation)),
        per_class=table,
        confused=pairs_of(12).assign(one=classes[1], other=classes[0]),
        calibration=metrics.temperature_effect(np.arange(2), SURE, Temperature(0.5, 0.4, 0.6)),
        coverage=metrics.coverage(np.array([1, 0]), SURE, None),
        right=right(scores, "test", known["counts"]["test"])[chosen.variant, chosen.seed].to_numpy(),
        served_validation=0.78,
        selection=chosen,
        diverged={},
        diagnosis=diagnosis_of(chosen.files.name),
        **{part: Correctness(right(scores, part, known["counts"][part])) for part in ("validation", "test")},
    )


def recipe_of(variant: str) -> dict[str, Any]:
    """A recipe without a model."""
    optimizer = {"name": "sgd", "learning_rate": 0.1}
    settings = {"network": "vgg3", "optimizer": optimizer, "batch_size": 32, "epochs": 3}
    machine = {"threads": 1, "precision": "float32", "precision_setting": "float32", "device": "cpu"}
    recipe = {"variant": variant, "init_from": None, "model": {}, "optimizer": {}, "settings": settings}
    return recipe | machine | {"versions": {}}


def right(scores: pd.DataFrame, part: str, images: int) -> pd.DataFrame:
    """Which images each model gets right, so many that its accuracy is that of the scores."""
    random = np.random.default_rng(0)
    columns = {
        (row["variant"], row["seed"]): random.permutation(images) < round(row[f"{part}_accuracy"] * images)
        for _, row in scores.iterrows()
    }
    return pd.DataFrame(columns).rename_axis(columns=["variant", "seed"])


EXAMPLE = results_of()  # of one seed


def table_rows(text: str, first: str) -> list[list[str]]:
    """The rows of the first Markdown table whose first column is called so."""
    table = re.search(rf"^\| {first} +\|.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    lines = table[0].splitlines() if table else []
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]
