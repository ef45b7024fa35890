"""With several seeds, means are ranked and reported, and the best seed becomes champion."""

import json
import re

import pandas as pd
import pytest

from pipeline.stages.promote import serving_check
from tests.called import call, this_process
from tests.conftest import Clone
from tests.projects import Project, before_training, small_params


@pytest.fixture(scope="module")
def job(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after all stages, in which two variants were trained with two seeds each."""
    params = small_params(shallow={"epochs": 2}, baseline={"epochs": 1}) | {"seeds": [0, 1]}
    made = before_training(clone, tmp_path_factory.mktemp("seeds") / "job", params)
    models = [f"{name} {seed}" for name in params["variants"] for seed in params["seeds"]]
    stages = ["recipes", *(f"train {model}" for model in models), *(f"predict {model}" for model in models)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_check, "new_process", this_process)
        for stage in [*stages, "evaluate", "select", "promote", "diagnose", "report"]:
            assert call(made.folder, *stage.split()).error is None
    return made


def test_the_best_seed_of_the_variant_with_the_best_mean_is_champion(job: Project) -> None:
    rows = [
        {"variant": variant, "seed": seed, "accuracy": json.loads(path.read_text())["validation"]["accuracy"]}
        for path in (job.folder / "metrics").glob("*.json")
        for variant, _, seed in [path.stem.rpartition("-")]
    ]
    means = pd.DataFrame(rows).groupby("variant")["accuracy"].mean()
    seeds = [row for row in rows if row["variant"] == means.idxmax()]
    tags = job.client.get_model_version_by_alias("digits", "champion").tags
    assert (tags["variant"], tags["seeds"]) == (means.idxmax(), "2")
    assert tags["seed"] == max(seeds, key=lambda row: (row["accuracy"], -int(row["seed"])))["seed"]
    assert float(tags["mean_validation_score"]) == pytest.approx(means.max(), abs=1e-6)


def test_the_version_is_described_by_the_card_and_the_cost(job: Project) -> None:
    described = str(job.client.get_model_version_by_alias("digits", "champion").description)
    card, _, cost = described.partition("\n\n## Cost\n\n")
    assert card.startswith("# digits: ")
    assert card in (job.folder / "reports/model-card.md").read_text()
    assert re.match(r"The training took [\d.]+ CPU (?:minutes|seconds), an estimated [\d.]+ Wh", cost)


def test_the_report_has_means_over_the_seeds_and_is_logged(job: Project) -> None:
    report = (job.folder / "reports/report.md").read_text()
    assert "means and standard deviations over 2 seeds" in report
    assert "Differences between the variants' mean test accuracies" in report
    logged = next(run for run in job.runs() if run.data.tags.get("stage") == "report")
    files = [file.path for file in job.client.list_artifacts(logged.info.run_id, "report")]
    assert {"report/report.html", "report/frontier.png"} <= set(files)
