"""The card of the chosen model: what it is, how far to trust it, how it was made. Hugging Face's format."""

from typing import Any

import pandas as pd
import yaml

from pipeline.stages.report.diagnosis import robustness
from pipeline.stages.report.markdown import literal, markdown_table
from pipeline.stages.report.report_text import by_class, limits
from pipeline.stages.report.results import Results
from pipeline.stages.report.statistics import wilson
from pipeline.support.reading import read_table

NAMED = 20  # classes in the first sentence
ORIGINS = {
    "cifar10": """\
CIFAR-10 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009): photographs of 32 x 32
pixels, found on the web by the names of their classes and checked by people. Its author names no licence. The
Tiny Images, from which they come, were withdrawn in 2020 for offensive labels; the ten classes here are
vehicles and animals.""",
    "digits": """\
Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), the part that scikit-learn carries:
1,797 digits that 13 people wrote, 8 x 8 pixels, made larger. Licence: CC BY 4.0.""",
    "directory": """\
Images from folders that params.yaml named. Their origin and licence are not recorded.""",
}
USE = """\
It assigns one of {classes} classes to an image that is known to show one of them. It is made for teaching,
comparing methods and trying a pipeline, not for decisions about people."""
FAILURES = "![Right, and most confident mistakes](examples.png)\n\n![Reliability](reliability.png)"


def write(results: Results) -> str:
    """The card in Markdown, with a metadata header and figures beside it."""
    sections = {
        f"# {literal(results.facts['name'])}: {literal(results.candidate.variant)}": summary(results),
        "## Results by class": markdown_table(by_class(results.per_class[results.candidate.name])),
        "## How it fails": f"{FAILURES}\n\n{robustness(results)}",
        "## Training": training(results),
    }
    text = "\n\n".join(f"{title}\n\n{section}" for title, section in sections.items())
    return f"---\n{yaml.safe_dump(metadata(results), sort_keys=False)}---\n\n{text}\n"


def metadata(results: Results) -> dict[str, Any]:
    """The header that `huggingface_hub.ModelCard` reads."""
    name, chosen = results.facts["name"], results.selection
    metric = {"type": "accuracy", "value": round(chosen.test_accuracy, 4)}
    found = {
        "task": {"type": "image-classification"},
        "dataset": {"type": name, "name": name, "split": "test"},
        "metrics": [metric],
    }
    return {
        "model_digest": chosen.model_digest,
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "datasets": [name],
        "metrics": ["accuracy"],
        "model-index": [{"name": results.candidate.name, "results": [found]}],
    }


def summary(results: Results) -> str:
    """What it is, what it is for, its accuracy and calibration: the description of the registered version."""
    facts, chosen, counts = results.facts, results.selection, results.facts["counts"]
    low, high = wilson(chosen.test_accuracy, counts["test"])
    classes, size = facts["classes"], facts["image_shape"][0]
    named = ", ".join(literal(name) for name in classes[:NAMED]) + " ..." * (len(classes) > NAMED)
    sections = [
        f"A network of {results.table['parameters'][chosen.variant]:,.0f} parameters that classifies "
        f"images of {size} x {size} pixels into {len(classes)} classes: {named}.",
        f"**Accuracy**: {chosen.test_accuracy:.4f} on {counts['test']:,} test images (95 % interval "
        f"{low:.3f} to {high:.3f}), {chosen.validation_accuracy:.4f} on the {counts['validation']:,} "
        f"validation images on which it was chosen from {len(results.validation.right.columns)} models.",
        calibration(results),
        "## Intended use and limits",
        USE.format(classes=len(classes)),
        limits(facts),
        "## Data",
        f"{ORIGINS[facts['source']]} {counts['train']:,} images were trained on. Digest of the split: "
        f"`{facts['split_digest'][:12]}`.",
    ]
    return "\n\n".join(sections)


def calibration(results: Results) -> str:
    """How far its confidence can be believed."""
    names = ("loss", "brier", "calibration_error", "temperature")
    path = results.candidate.evaluation / "temperature.csv"
    plain, scaled = read_table(path, dict.fromkeys(names, float)).to_dict("records")
    return (
        f"**Calibration**: error {plain['calibration_error']:.3f}, Brier score {plain['brier']:.3f}, "
        f"cross-entropy {plain['loss']:.3f} nats. A temperature of {scaled['temperature']:.2f}, fitted on "
        f"validation images, would make these {scaled['calibration_error']:.3f}, {scaled['brier']:.3f} and "
        f"{scaled['loss']:.3f}; the served model has none."
    )


def training(results: Results) -> str:
    """The settings of its training, and how it was chosen."""
    params = results.candidate.record()["params"]
    rows = pd.DataFrame({"setting": list(params), "value": [str(value) for value in params.values()]})
    text = (
        f"Seed {results.candidate.seed}. It was chosen on validation images alone; test images played no "
        "part in the choice. What it cost is in the description of its version in MLflow."
    )
    return f"{text}\n\n{markdown_table(rows)}"
