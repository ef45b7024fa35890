"""The report: its tables, and its sentences, which agree with the numbers."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.report import documents, tables
from pipeline.stages.report.controlled import apart, controlled_pairs
from pipeline.stages.report.results import Results
from pipeline.stages.report.template_data import hardest
from tests.example_results import EXAMPLE, PARAMETERS, pairs_of, results_of, table_rows


def test_all_sections_are_there_in_their_order_and_what_diverged_with_its_reason() -> None:
    text = documents.report(replace(EXAMPLE, diverged={"runaway-0": "its loss is nan in epoch 3"}))
    assert re.findall("^##? (.*)$", text, re.MULTILINE) == [
        "Results on pets",
        "All variants",
        "Which differences are real",
        "What the comparison shows",
        "Results by class",
        "Predictions of vgg3_early_stop-0",
        "Robustness",
        "Data",
        "Limits",
    ]
    assert "- `runaway-0` diverged and is in no table: its loss is nan in epoch 3.\n" in text
    assert text.count("runaway") == 1
    assert "\n\n\n" not in text


def test_one_model_is_told_in_the_singular_and_without_backslashes() -> None:
    text = documents.report(results_of(1, {"vgg3": 0.7}))
    assert not re.search(r"(?<![\w.,])1 \w+s\b", text)
    assert "\\" not in text


def test_settings_that_tell_no_variant_from_another_are_in_no_table() -> None:
    """As if all of one's own networks are trained alike."""
    alike = {"optimizer": "adam", "batch_size": 16}
    settings = {name: alike | {"network": name} for name in EXAMPLE.settings}
    assert "main settings" not in documents.report(replace(EXAMPLE, settings=settings))
    settings["vgg3"] |= {"network": "batchnorm", "batch_size": 64}
    text = documents.report(replace(EXAMPLE, settings=settings))
    section = text.partition("The main settings in which the variants differ")[2]
    assert table_rows(section, "variant")[0] == ["variant", "network", "batch size"]


def test_what_diagnose_found_is_told_with_its_effect() -> None:
    results = EXAMPLE
    text = documents.report(results)
    assert "1 of 10,000 test images and 1 of 5,000 validation images closely resemble" in text
    assert "The pixels of the median pair differ by 4 of 255 levels" in text
    alike = (
        "among the training images alone, 1.5 to 2.7 % resemble another one (95 % interval): as many or more"
    )
    assert alike in text
    others = results.test.right["vgg3_early_stop", 0].drop(3)
    assert f"{others.mean():.3f} of the other test images (" in text
    some = results.diagnosis["resemblance"].assign(similar=[500, 1, 40])
    leaking = replace(results, diagnosis=results.diagnosis | {"resemblance": some})
    assert "fewer, which points to pictures that the parts share." in documents.report(leaking)
    assert "for 1 of 10,000 test images, `vgg3_early_stop-0` confidently predicts a class other" in text
    assert "On the first 2,000 test images, `vgg3_early_stop-0` has an accuracy of 0.750." in text
    assert "lowest for noise (0.250) and highest for blur (0.500)." in text
    tried = results.diagnosis["robustness"].replace("blur", "grey")
    text = documents.report(replace(results, diagnosis=results.diagnosis | {"robustness": tried}))
    assert "Without colour it is 0.500 (95 % interval 0.478 to 0.522)" in text
    spared = tried.assign(accuracy=tried["accuracy"].where(tried["level"] == 0, 0.75))
    text = documents.report(replace(results, diagnosis=results.diagnosis | {"robustness": spared}))
    assert "highest for noise, grey (0.750). Without colour it is the same." in text


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (EXAMPLE, "0.7700 over 1 seed; `vgg3` comes second with 0.7600.\n\n"),
        (results_of(3), "0.7700 over 3 seeds; `vgg3` comes second with 0.7600.\n\n"),
        (results_of(1, {"vgg3": 0.76}), "0.7600 over 1 seed.\n\n"),
        (
            results_of(1, {"a": 0.7, "b": 0.7}),
            "0.7000 over 1 seed; `b` has the same mean, but comes later",
        ),
    ],
)
def test_the_chosen_model_stands_first_with_the_reason_of_the_choice(results: Results, reason: str) -> None:
    chosen, text = results.selection, documents.report(results)
    named = f"The chosen model is **{chosen.variant}** (seed {chosen.seed}), for the highest mean validation "
    header, figures, below = table_rows(text, "test accuracy")
    assert header == ["test accuracy", "validation accuracy", "calibration error"]
    assert figures == [f"{chosen.test_accuracy:.4f}", f"{results.served_validation:.4f}", "0.012"]
    interval = r"95 %: 0\.\d+ to 0\.\d+"
    assert re.fullmatch(rf"{interval}; {interval}; 0\.100 without temperature", "; ".join(below))
    assert text.startswith("# Results on pets\n\n| test accuracy ")
    assert f" |\n\n{named}accuracy: {reason}" in text
    views = f"with one view, its validation accuracy is {chosen.validation_accuracy:.4f}."
    assert (views in text) == (chosen.variant == "vgg3")


def test_variants_stand_by_validation_accuracy_beside_their_published_figure() -> None:
    text = documents.report(EXAMPLE)
    assert ["; ".join(row) for row in table_rows(text, "variant")] == [
        "variant; parameters; epochs; validation; test; with views; published (test); difference",
        "vgg3_early_stop; 550,571; 10; 0.7700 (0.758 to 0.781); 0.7500 (0.741 to 0.758); ; ; ",
        "vgg3; 550,570; 10; 0.7600 (0.748 to 0.772); 0.7400 (0.731 to 0.749); 0.9000; 0.7678; -2.8",
        "batchnorm; 359,242; 10; 0.7000 (0.687 to 0.713); 0.6800 (0.671 to 0.689); ; ; ",
    ]
    assert "5,000 validation and 10,000 test images. Each variant was trained once. The 95 % interval" in text
    assert "The difference from the published test accuracy" in text
    assert '"With views" is the accuracy' in text


def test_a_metric_of_ones_own_is_in_the_report_with_that_which_chose() -> None:
    own = EXAMPLE.scores.assign(validation_top3=[0.93, 0.92, 0.91], test_top3=[0.83, 0.82, 0.81])
    chosen = EXAMPLE.selection.model_copy(update={"metric": "top3"})
    text = documents.report(replace(EXAMPLE, scores=own, selection=chosen))
    first, of_tests = (table_rows(part, "variant") for part in re.split("All other scores", text)[:2])
    assert [row[first[0].index("top3 (validation)")] for row in first[1:]] == ["0.9300", "0.9200", "0.9100"]
    assert of_tests[0] == ["variant", "top3"]
    assert dict(of_tests[1:]) == dict(zip(own.index, ("0.830", "0.820", "0.810"), strict=True))


def test_the_settings_say_what_a_training_starts_from() -> None:
    assert "starts from" not in documents.report(EXAMPLE)
    settings = EXAMPLE.settings | {
        "vgg3": {"init_from": "batchnorm"},
        "batchnorm": {"start.sha256": "ab" * 32},
    }
    shown = tables.settings(replace(EXAMPLE, settings=settings))["starts from"]
    assert shown.to_dict() == {"vgg3_early_stop": "", "vgg3": "batchnorm", "batchnorm": "weights abababab"}


def test_figures_of_several_seeds_are_means_and_deviations() -> None:
    results = results_of(3)
    text = documents.report(results)
    assert "Values are means and standard deviations over 3 seeds." in text
    assert table_rows(text, "variant")[1][2:5] == ["11", "0.7700 ± 0.0100", "0.7500 ± 0.0100"]
    header, *rows = table_rows(text.split("## Results by class")[1], "variant")
    assert header == ["variant", "cat", "dog"]
    assert [row[0] for row in rows] == list(results.table.index)
    assert rows[1][1] == f"{results.f1['cat']['vgg3']:.3f}"


def test_a_variant_with_fewer_seeds_than_the_others_is_explained() -> None:
    results = results_of(3)
    table = results.table.assign(seeds=[1, 3, 3], test_sd=[np.nan, 0.01, 0.01])
    expected = "3 seeds. Some trainings diverged. A variant with one seed left is shown with a 95 % interval"
    assert expected in documents.report(replace(results, table=table))


def sentence(results: Results, title: str) -> str | None:
    """The finding with this title."""
    found = re.search(rf"^- \*\*{title}\*\*: (.*)$", documents.report(results), re.MULTILINE)
    return found and found[1]


def test_real_differences_are_told_from_chance() -> None:
    close = {"vgg3": 0.765, "vgg3_early_stop": 0.77, "batchnorm": 0.60, "same": 0.77}
    for seeds, noun, end in ((1, "model", "-0"), (3, "variant", "")):
        text = documents.report(results_of(seeds, close))
        chosen, *others = (f"`{name}{end}`" for name in ("vgg3_early_stop", "batchnorm", "same", "vgg3"))
        verdict = f"On test images, the {noun} {chosen} is better than {others[0]}. "
        pair = f"{others[1]} and {others[2]}"
        unclear = f"These test images do not show whether the {noun} {chosen} differs from {pair}."
        assert f"{verdict}{unclear}" in text
        assert ("Each variant was trained once, so this compares the models" in text) == (seeds == 1)
        table = table_rows(text, "compared with")
        rows = {row[0]: row[1:] for row in table[1:]}
        assert rows[f"batchnorm{end}"][0] == "+17.0"
        assert [rows[f"{name}{end}"][-1] for name in ("batchnorm", "same", "vgg3")] == ["yes", "no", "no"]


def test_a_pair_has_one_cause_only_if_it_differs_in_one_thing() -> None:
    adam = {"network": "augmented", "optimizer": "adam", "optimizer.learning_rate": 0.001, "epochs": 10}
    sgd = adam | {"optimizer": "sgd", "optimizer.learning_rate": 0.01, "optimizer.momentum": 0.9}
    stopping = {"early_stopping.monitor": "val_loss", "early_stopping.patience": 2, "epochs": 40}
    settings = {
        "adam": adam,
        "sgd": sgd,
        "long_sgd": sgd | {"epochs": 30},
        "vgg3": adam | {"network": "vgg3", "threads": 2},
        "vgg3_early_stop": adam | {"network": "vgg3"} | stopping,
        "served_with_views": adam | {"network": "vgg3", "views": "mirror"},
        "subset": sgd | {"training_images": 10, "batch_size": 7, "init_from": "sgd"},
        "slow": sgd | {"optimizer.learning_rate": 0.001},
        "scheduled": sgd | {"optimizer.learning_rate": "triangle", "optimizer.learning_rate.peak": 1.0},
    }
    assert controlled_pairs(settings) == {
        ("sgd", "adam"): "optimizer",
        ("long_sgd", "sgd"): "epochs",
        ("vgg3_early_stop", "vgg3"): "when training ends",
        ("served_with_views", "vgg3_early_stop"): "when training ends",
        ("subset", "sgd"): "further training",
        ("slow", "adam"): "optimizer",
        ("slow", "sgd"): "optimizer.learning_rate",
        ("scheduled", "adam"): "optimizer",
        ("scheduled", "sgd"): "optimizer.learning_rate",
        ("scheduled", "slow"): "optimizer.learning_rate",
    }
    assert apart(settings["long_sgd"], settings["vgg3"]) == ["epochs", "network", "optimizer"]


def test_causes_are_named_with_seeds_and_whole_systems_never_have_one() -> None:
    variants = {"vgg3": 0.76, "vgg3_early_stop": 0.77, "batchnorm": 0.70, "deep_gap": 0.7}
    for seeds, end in ((1, "-0"), (3, "")):
        results = results_of(seeds, variants)
        for name, epochs in (("vgg3", 35), ("vgg3_early_stop", 40)):
            results.settings[name] = {"network": "vgg3", "epochs": epochs}
        for name in ("batchnorm", "deep_gap"):
            results.settings[name] = {"network": name, "epochs": 40}
        text = documents.report(results)
        found, expected = results.test.compare([("vgg3_early_stop", "vgg3")]).iloc[0] * 100, "+1.0"
        interval = f"{found['low']:+.1f} to {found['high']:+.1f}"
        assert table_rows(text, "differ only in")[1][:5] == [
            "epochs",
            f"vgg3_early_stop{end}",
            f"vgg3{end}",
            expected,
            interval,
        ]
        assert ("So a real difference has one cause" in text) == (seeds == 3)
        assert ("which one seed cannot tell" in text) == (seeds == 1)
        assert [row[:3] for row in table_rows(text, "differ in")[1:]] == [
            ["epochs, network", f"deep_gap{end}", f"vgg3{end}"],
            ["network", f"batchnorm{end}", f"vgg3_early_stop{end}"],
        ]


def test_the_noise_of_a_published_figure_is_that_of_the_seeds_at_hand() -> None:
    assert "One seed does not show how much two trainings of a variant differ." in documents.report(EXAMPLE)
    text = documents.report(results_of(3))
    assert "differ by up to 2.8 points in 95 % of cases" in text
    assert "pooled over all variants (1.00 points)" in text


@pytest.mark.parametrize(
    ("validation", "verdict"),
    [
        ({"a": 0.8, "b": 0.7, "c": 0.6}, "On test images, the model `a-0` is better than all others."),
        ({"a": 0.8}, "There is only one variant, so there is nothing to compare."),
    ],
)
def test_the_best_of_all_and_the_only_variant_are_called_so(
    validation: dict[str, float], verdict: str
) -> None:
    assert f"## Which differences are real\n\n{verdict}\n" in documents.report(results_of(1, validation))


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (
            0.9,
            "In training it reached 0.900, so this is no over-fitting: with the kept weights even training",
        ),
        (0.5, "It has not learned its training images either: it may need more steps"),
    ],
)
def test_a_variant_at_chance_is_told_from_one_that_over_fits(training: float, reason: str) -> None:
    results = results_of(1, {"a": 0.9, "b": 0.5})
    table = results.table.assign(training_accuracy=[0.9, 0.5])
    histories = {name: of.assign(accuracy=training) for name, of in results.histories.items()}
    text = documents.report(replace(results, table=table, histories=histories))
    what = "`b` validates no better than guessing: 0.500, where the most frequent class gives 0.500."
    assert f"- **At chance**: {what} {reason}" in re.sub(r"\n *", " ", text)
    assert text.count("At chance") == 1
    fits = replace(results, table=results.table.assign(training_accuracy=[0.9, 0.9]))
    assert "At chance" not in documents.report(
        fits
    )  # the kept weights know the training images: it over-fits


def test_a_model_that_is_mostly_wrong_lists_no_suspicious_label() -> None:
    weak = EXAMPLE.selection.model_copy(update={"test_accuracy": 0.4})
    text = documents.report(replace(EXAMPLE, selection=weak))
    assert "none are listed, since `vgg3_early_stop-0` is wrong about most test images" in text
    assert "label_errors.png" not in text


def test_overfitting_is_named_only_where_it_is() -> None:
    scored = "the kept weights were scored on 2,000 training images, without dropout and augmentation. "
    assert sentence(EXAMPLE, "Overfitting") == (
        f"{scored}For 1 of 3 variants, this accuracy is above the validation accuracy by more than chance. "
        "The gap is widest for `vgg3`: 0.990 against 0.760, a gap of 21.4 to 24.5 points (95 % intervals "
        "for other images, which hold for all variants at once)."
    )
    none = f"{scored}For no variant is this accuracy above the validation accuracy by more than chance."
    assert sentence(results_of(1, {"a": 0.7, "b": 0.6}), "Overfitting") == none


def test_size_is_a_rank_correlation_of_enough_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"v{number}": 0.5 + 0.01 * number for number in range(10)}
    assert sentence(EXAMPLE, "Size") is None
    assert sentence(results_of(1, many), "Size") is None  # all of one size
    for number, variant in enumerate(many):
        monkeypatch.setitem(PARAMETERS, variant, number)
    expected = "the rank correlation between parameters and validation accuracy is +1.00 (10 variants). "
    assert str(sentence(results_of(1, many), "Size")).startswith(expected)


@pytest.mark.parametrize(
    ("f1", "expected"),
    [
        ([0.9, 0.3, 0.5, 0.1, 0.8, 0.9, 0.9], {"d": 0.1, "b": 0.3, "c": 0.5}),
        ([0.9, 0.3], {"b": 0.3}),
        ([0.9, 0.3, 0.3, 0.8, 0.9], {"b": 0.3, "c": 0.3}),
        ([0.9, 0.9, 0.9], {}),
    ],
)
def test_hardest_classes_are_few_or_none(f1: list[float], expected: dict[str, float]) -> None:
    assert hardest(pd.DataFrame([f1], columns=list("abcdefg")[: len(f1)])) == expected


def test_hardest_classes_are_named() -> None:
    results = results_of(classes=["a", "b", "c"])
    for f1, named in (
        ([0.9, 0.3, 0.5], "on average over all variants: b (0.300)."),
        ([0.9] * 3, "No class is"),
    ):
        table = pd.DataFrame([f1] * len(results.f1), index=results.f1.index, columns=results.f1.columns)
        assert named in documents.report(replace(results, f1=table))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ((12, 3), "It most often confuses a and b (12 test images)."),
        ((1, 0), "It most often confuses a and b (1 test image)."),
        ((2, 2, 1), "It most often confuses a and b; c and d (2 test images each)."),
        ((2, 2, 2, 2), "No pair of classes stands out: several are confused in 2 images each."),
        ((0, 0), "It makes no mistake on test images.\n\n![Confusion matrix]"),
    ],
)
def test_ties_are_not_called_most(images: tuple[int, ...], expected: str) -> None:
    assert expected in documents.report(replace(EXAMPLE, confused=pairs_of(*images)))


def test_tables_of_a_hundred_classes_show_the_hardest_ten() -> None:
    results = results_of(classes=[f"class {number}" for number in range(100)])
    text = documents.report(results)
    by_class = table_rows(text.split("## Results by class")[1], "variant")
    assert by_class[0][1:] == [str(name) for name in results.f1.mean().nsmallest(10).index]
    assert len(table_rows(text, "class")) == 11
    assert text.count("the hardest 10 of 100 classes") == 2
    assert table_rows(text.split("## Data")[1], "images")[1:] == [
        [what, "20", "5", "5"] for what in ("min", "median", "max")
    ]


def test_data_says_what_was_checked() -> None:
    results = results_of(duplicates={"training_and_validation": 0, "test": 1})
    assert (
        "All variants share one split, with the digest `0123456789ab`. Exact copies, found by comparing the "
        "pixels of all images: 0 validation images also in training, 1 test image also in "
        "training or validation."
    ) in documents.report(results)
    assert table_rows(documents.report(results).split("## Data")[1], "class")[1] == ["cat", "20", "5", "5"]


def test_uneven_classes_have_scores_in_which_each_counts_the_same() -> None:
    assert "macro F1" not in "".join(tables.variants(EXAMPLE).columns)
    shown = tables.variants(replace(EXAMPLE, balance=EXAMPLE.balance.assign(test=[5, 20])))
    for variant, row in shown.iterrows():
        recall, f1 = (float(of.T[variant].mean()) for of in (EXAMPLE.recall, EXAMPLE.f1))
        assert (row["balanced (test)"], row["macro F1 (test)"]) == (f"{recall:.4f}", f"{f1:.4f}")
