"""The report: its tables, its sentences, which agree with the numbers."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.report.findings import NOISE, confusions, hardest
from pipeline.stages.report.report_text import write
from pipeline.stages.report.results import Results
from tests.made_results import (
    PARAMETERS,
    VALIDATION,
    pairs_of,
    results_of,
    sentence,
    table_rows,
)


def test_all_sections_are_there_in_their_order_and_what_diverged_with_its_reason() -> None:
    sections = [
        "Results on pets",
        "All variants",
        "Which differences are real",
        "What the comparison shows",
        "Results by class",
    ]
    sections += ["Test images of vgg3_early_stop-0", "Robustness", "Data", "Limits"]
    text = write(replace(results_of(), diverged={"runaway-0": "its loss is nan in epoch 3"}))
    assert re.findall("^##? (.*)$", text, re.MULTILINE) == sections
    assert "- `runaway-0` diverged, and is in no table: its loss is nan in epoch 3." in text
    assert text.count("runaway") == 1


def test_what_diagnose_found_is_told_with_its_effect() -> None:
    results = results_of()
    text = write(results)
    assert "1 of 10,000 test images and 1 of 5,000 validation images closely resemble" in text
    assert "That is many" not in text
    others = results.test.right["vgg3_early_stop", 0].drop(3)
    assert f"has an accuracy of {others.mean():.4f} instead of 0.7500" in text
    assert "**Suspicious labels**: 1 of 10,000, for which `vgg3_early_stop-0` confidently" in text
    assert "is 0.750 on the first 2,000 test images" in text
    assert "lowest with noise, 0.250, and highest with blur, 0.500." in text


@pytest.mark.parametrize(
    ("results", "chosen"),
    [
        (results_of(), "0.7700 over 1 seed; vgg3 comes next with 0.7600."),
        (results_of(3), "0.7700 over 3 seeds; vgg3 comes next with 0.7600."),
        (results_of(1, {"vgg3": 0.76}), "0.7600 over 1 seed."),
        (results_of(1, {"a": 0.7, "b": 0.7}), "0.7000 over 1 seed; b has the same, and comes later in "),
    ],
)
def test_reason_of_the_choice_is_given(results: Results, chosen: str) -> None:
    reason = "It was chosen on validation images alone, for the highest mean validation accuracy, "
    assert f"{reason}{chosen}" in write(results)


def test_variants_stand_by_validation_accuracy_beside_their_published_figure() -> None:
    text = write(results_of())
    assert (
        "Accuracy on 5,000 validation and 10,000 test images. One training each, with the 95 % interval"
        in text
    )
    assert f"up to {100 * NOISE:.1f} points are noise" in text
    assert ["; ".join(row) for row in table_rows(text, "variant")] == [
        "variant; parameters; epochs; validation; test; with views; published (test); difference",
        "vgg3_early_stop; 550,571; 10; 0.7700 (0.758 to 0.781); 0.7500 (0.741 to 0.758); ; ; ",
        "vgg3; 550,570; 10; 0.7600 (0.748 to 0.772); 0.7400 (0.731 to 0.749); 0.9000; 0.7678; -2.8",
        "batchnorm; 359,242; 10; 0.7000 (0.687 to 0.713); 0.6800 (0.671 to 0.689); ; ; ",
    ]


def test_figures_of_several_seeds_are_means_and_deviations() -> None:
    results = results_of(3)
    text = write(results)
    assert "Mean and standard deviation of 3 seeds." in text
    assert table_rows(text, "variant")[1][2:5] == ["11", "0.7700 ± 0.0100", "0.7500 ± 0.0100"]
    header, *rows = table_rows(text.split("## Results by class")[1], "variant")
    assert header == ["variant", "cat", "dog"]
    assert [row[0] for row in rows] == list(VALIDATION)
    mean = np.mean([results.per_class[f"vgg3-{seed}"].loc["cat", "f1"] for seed in range(3)])
    assert rows[0][1] == f"{mean:.3f}"


def test_a_variant_with_fewer_seeds_than_the_others_is_explained() -> None:
    results = results_of(3)
    table = results.table.assign(seeds=[1, 3, 3], test_sd=[np.nan, 0.01, 0.01])
    text = write(replace(results, table=table))
    assert "3 seeds. Some trainings diverged. A variant that has one seed left is shown" in text


@pytest.mark.parametrize(
    ("early", "verdict"),
    [(0.77, "which may be chance."), (0.80, "better."), (0.70, "worse.")],
)
def test_verdict_agrees_with_the_numbers(early: float, verdict: str) -> None:
    found = sentence(results_of(1, VALIDATION | {"vgg3_early_stop": early}), "Early stopping")
    assert found is not None
    change = f"{100 * (early - 0.76):+.1f} points ("
    begin = f"`vgg3_early_stop` {early:.4f}, `vgg3` 0.7600 on validation images: {change}"
    assert found.startswith(begin)
    assert found.endswith(f"), {verdict}")


def test_real_differences_are_told_from_chance() -> None:
    close = {"vgg3": 0.765, "vgg3_early_stop": 0.77, "batchnorm": 0.70, "same": 0.77}
    for seeds in (1, 3):
        text = write(results_of(seeds, close)).split("## Which differences are real")[1].split("\n##")[0]
        verdict = (
            "On test images `vgg3_early_stop` is better than `batchnorm`. Between `vgg3_early_stop` and "
        )
        assert f"{verdict}`same` and `vgg3` the difference may be chance. It would take about " in text
        assert ("With one seed" in text, "seeds of each." in text) == (seeds == 1, seeds > 1)
        rows = {row[0]: row[1:] for row in table_rows(text, "against")[1:]}
        assert rows["batchnorm"][0] == "+7.0"
        assert [rows[name][-1] for name in ("batchnorm", "same", "vgg3")] == ["yes", "no", "no"]


def test_overfitting_is_named_only_where_it_is() -> None:
    assert sentence(results_of(), "Over-fitting") == (
        "training accuracy exceeds the interval of validation accuracy for 1 of 3 variants. "
        "The widest gap is that of `vgg3`: 0.990 in the last epoch, 0.760 on validation images."
    )
    others = results_of(1, {"a": 0.7, "b": 0.6})
    expected = "no training accuracy exceeds the interval of the validation accuracy."
    assert sentence(others, "Over-fitting") == expected
    assert sentence(others, "Early stopping") is None


def test_size_is_a_rank_correlation_of_enough_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"v{number}": 0.5 + 0.01 * number for number in range(10)}
    assert sentence(results_of(), "Size") is None
    assert sentence(results_of(1, many), "Size") is None  # all of one size
    for number, variant in enumerate(many):
        monkeypatch.setitem(PARAMETERS, variant, number)
    expected = "the rank correlation of parameters and validation accuracy is +1.00 (10 variants)."
    assert sentence(results_of(1, many), "Size") == expected


@pytest.mark.parametrize(
    ("f1", "expected"),
    [
        ([0.9, 0.3, 0.5, 0.1, 0.8, 0.9, 0.9], "mean over all variants: d (0.100), b (0.300), c (0.500)."),
        ([0.9, 0.3], "mean over all variants: b (0.300)."),
        ([0.9, 0.3, 0.3, 0.8, 0.9], "mean over all variants: b (0.300), c (0.300)."),
        ([0.9, 0.9, 0.9], "No class is clearly the hardest."),
    ],
)
def test_hardest_classes_are_few_or_none(f1: list[float], expected: str) -> None:
    assert hardest(pd.DataFrame([f1], columns=list("abcdefg")[: len(f1)])).endswith(expected)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ((12, 3), "It confuses these most: a and b, 12 images."),
        ((1, 0), "It confuses these most: a and b, 1 image."),
        ((2, 2, 1), "It confuses these most: a and b; c and d, 2 images each."),
        ((2, 2, 2, 2), "No pair of classes stands out: several are confused in 2 of the images each."),
        ((0, 0), "It confuses no two classes."),
    ],
)
def test_ties_are_not_called_most(images: tuple[int, ...], expected: str) -> None:
    assert confusions(pairs_of(*images)) == expected


def test_tables_of_a_hundred_classes_show_the_hardest_ten() -> None:
    results = results_of(classes=[f"class {number}" for number in range(100)])
    text = write(results)
    by_class = table_rows(text.split("## Results by class")[1], "variant")
    assert by_class[0][1:] == [str(name) for name in results.f1.mean().nsmallest(10).index]
    assert len(table_rows(text, "class")) == 11
    assert text.count("the hardest 10 of 100 classes") == 2
    assert table_rows(text.split("## Data")[1], "images")[1:] == [
        [what, "20", "5", "5"] for what in ("min", "median", "max")
    ]


def test_data_says_what_was_checked() -> None:
    text = write(results_of(duplicates={"training_and_validation": 0, "test": 1}))
    assert "digest `0123456789ab`" in text
    assert (
        "The pixels of all images were compared: 0 validation images also in training, "
        "1 test image also in training or validation.\n"
    ) in text
    assert "| cat | 20 | 5 | 5 |" in text
