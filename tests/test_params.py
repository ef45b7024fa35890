"""params.yaml: a good one is read, and a bad one is refused in one line that says what to change."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.__main__ import main
from pipeline.params import Params
from pipeline.shared.metrics import METRICS
from pipeline.shared.selection import LOSSES
from pipeline.support.errors import PipelineError
from pipeline.support.known_names import metric_names, network_names
from pipeline.support.model_files import ModelFiles
from tests.conftest import MISSING, PARAMS, ROOT, change, refusal

ORIGINAL = PARAMS.read_text()


def tree() -> dict[str, Any]:
    return YAML(typ="safe").load(ORIGINAL)


def write(content: Any, folder: Path) -> Path:
    """Write `content` as a params.yaml: JSON is YAML."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(content, ensure_ascii=False))
    return path


def altered(folder: Path, key: str, value: Any = MISSING) -> Path:
    """The tests' params.yaml with one dotted key set to another value, or left out."""
    content = tree()
    change(content, key, value)
    return write(content, folder)


def problem(path: Path) -> str:
    """What is wrong with a params.yaml, always in one line that names the file."""
    message = refusal(Params.read, path)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def problem_of(text: str | bytes, folder: Path) -> str:
    """What is wrong with a params.yaml of this text."""
    path = folder / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return problem(path)


def test_every_variant_is_trained_with_every_seed(tmp_path: Path) -> None:
    names = [name for group in (tree(), tree()["finetune"]) for name in group["variants"]]
    trained = Params.read(altered(tmp_path, "seeds", [5, 7])).models
    assert trained == [ModelFiles(name, seed) for name in names for seed in (5, 7)]


SHALLOW = tree()["variants"]["shallow"]
WEIGHTS = {"weights": ["a.h5"], "sha256": "0" * 64}
START = "variants.shallow.start"
BIRDS = {"source": "directory", "name": "birds"}
WRITTEN = {
    "data/raw/test": "data/raw",
    "./data/images": "data/images",
    "data": "data/images",
    "models": "models",
}
RATE = "variants.shallow.optimizer.learning_rate"
REFUSED = [
    ("spilt", 1, "spilt: unknown key; allowed: data, split, training, seeds, "),
    ("two\nlines", 1, "two lines: unknown key"),
    ("data.dir", "x", "data.dir: unknown key; allowed: source, name, archives, sha256, folders,"),
    ("variants.baseline.early_stopping.patient", 1, "allowed: monitor, patience, restore_best_weights"),
    ("training", MISSING, "training: missing"),
    (RATE, "fast", "must be a number; received 'fast'"),
    ("data.source", MISSING, "data.source: missing"),
    ("data.source", "cifar100", "data.source: allowed: 'cifar10', 'digits', 'directory'; "),
    ("data", BIRDS, "data: folders must name a folder for test and "),
    *(
        ("data", BIRDS | {"folders": {"train": "photos", "test": folder}}, f"apart from {written}, which the")
        for folder, written in WRITTEN.items()
    ),
    ("variants", {"two-words": SHALLOW}, "variants.two-words: must be a lower-case letter and "),
    ("variants.shallow", None, "variants.shallow: must be a mapping of keys; received None"),
    ("promotion.metric", "f1", f"promotion.metric: allowed: {', '.join(metric_names())}; received 'f1'"),
    ("variants.shallow.network", "cnn", f"allowed: {', '.join(network_names())}; received 'cnn'"),
    (
        "variants.shallow.network",
        {"name": "application", "model": "MobileNetV9"},
        "variants.shallow.network: model: allowed: ConvNeXtBase, ",
    ),
    (START, WEIGHTS | {"sha256": "1"}, "start.sha256: must be 64 of the digits 0-9 and a-f; received '1'"),
    (START, {"sha256": "0" * 64}, "start: must have exactly one of weights and model; received "),
    (
        START,
        {"model": "runs:/1", "sha256": "0" * 64},
        "start.model: must be models:/NAME/VERSION; received 'runs:/1'",
    ),
    (
        "finetune.variants.batchnorm_subset.start",
        WEIGHTS,
        "batchnorm_subset.start: not allowed: it starts from",
    ),
    ("finetune", None, "finetune: must be a mapping of keys; received None"),
    ("split", MISSING, "split: missing"),
    ("seeds", [0, 1, 0], "seeds: must be distinct; received [0, 1, 0]"),
    ("seeds", [-1] * 1_000, "seeds.9: must be greater than or equal to 0; received -1; and 990 more"),
    ("finetune.variants.shallow", SHALLOW, "finetune.variants: in variants too: shallow"),
    ("finetune.init_from", "resnet", "finetune.init_from: allowed: translate, shallow, augmented,"),
    ("finetune.init_from", "vgg3", "finetune.variants.batchnorm_subset.network: must be 'vgg3', that of "),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_wrong_value_is_refused_by_its_key(tmp_path: Path, key: str, value: Any, message: str) -> None:
    assert message in problem(altered(tmp_path, key, value))


def test_all_problems_are_in_the_one_line(tmp_path: Path) -> None:
    content = tree()
    content["sedes"] = content.pop("seeds")
    content["split"]["seed"] = -1
    message = problem(write(content, tmp_path))
    assert all(found in message for found in ("seeds: missing", "sedes: unknown key", "split.seed: "))


OVERRIDES = {
    "variants.speedrun.optimizer.learning_rate.peak": 0.5,
    "variants.speedrun.network.widths": [16, 32, 32],
    "finetune.variants.batchnorm_subset.epochs": 3,
    "variants.batchnorm.early_stopping.restore_best_weights": False,
    "+variants.shallow.label_smoothing": 0.1,
    "seeds": [0, 1],
    "training.precision": "auto",
}


@pytest.mark.parametrize(("key", "value"), OVERRIDES.items(), ids=OVERRIDES)
def test_what_an_experiment_sets_is_all_that_changes(tmp_path: Path, key: str, value: Any) -> None:
    """In the repository's file, as `dvc exp run -S` sets it."""
    expected = Params.read(altered(tmp_path, key.removeprefix("+"), value))
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL)
    apply_overrides(path, [f"{key}={json.dumps(value)}"])
    assert Params.read(path) == expected


def test_the_metrics_that_may_choose_are_those_that_are_measured(tmp_path: Path) -> None:
    assert sorted(metric_names()) == sorted(METRICS)
    assert set(METRICS) > LOSSES
    chosen = ORIGINAL.replace("promotion:\n", "promotion:\n  metric: balanced_accuracy\n")
    (tmp_path / "params.yaml").write_text(chosen)
    assert Params.read(tmp_path / "params.yaml").promotion.metric == "balanced_accuracy"


def line_of(key: str) -> int:
    """The number of the first line that begins with a key."""
    return next(number for number, line in enumerate(ORIGINAL.splitlines(), 1) if line.startswith(key))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            ORIGINAL.replace("\nseeds:", "\nseeds: [1]\nseeds:"),
            f'line {line_of("seeds:") + 1}: found duplicate key "seeds"',
        ),
        (
            ORIGINAL.replace("  shallow:\n", "  shallow: {}\n  shallow:\n", 1),
            f"line {line_of('  shallow:') + 1}: found duplicate key",
        ),
        (b"\xff\xfe", "cannot be read: "),
        (
            "a: 1\nb: &x {c: 1}\n",
            "line 2: must not have &, * or <<; `dvc exp run -S ...` would change each place",
        ),
        ("- a\n- b\n", "the file: must be a mapping of keys; received"),
        ("", "the file: must be a mapping of keys; received"),
        ("a: [", "line 1: "),
        ("a: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("---\na: 1\n---\nb: 2\n", "line 3: "),
        ("[" * 5_000, "maximum recursion depth exceeded"),
    ],
    ids=range(10),
)
def test_file_that_is_no_yaml_is_refused(tmp_path: Path, text: str | bytes, reason: str) -> None:
    assert reason in problem_of(text, tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        (
            "seeds",
            "[0x" + "f" * 5_000 + "]",
            "received an integer of thousands of digits",
        ),
        ("seeds", "&seeds [0, *seeds]", "line 2: must not have &, * or <<"),
        ("promotion", "{margin: .NaN}", "promotion.margin: must be a finite number; received nan"),
        ("promotion", "{margin: 0.1, <<: {margins: 1}}", "line 2: must not have &, * or <<"),
    ],
)
def test_what_only_yaml_can_say_is_refused_by_its_key(
    tmp_path: Path, key: str, text: str, expected: str
) -> None:
    content = tree()
    del content[key]
    message = problem_of(f'{json.dumps(content)[:-1]},\n "{key}": {text}}}\n', tmp_path)
    assert expected in message
    assert len(message.encode()) < 600  # and it can be printed


def every_key(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from every_key(value, f"{prefix}{key}.")


TEXT = st.text(st.characters(codec="utf-8"))
FEW = settings(max_examples=50)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2**31, 2**63, 2**64, 10**400, 1e-3, 1e300]),
    st.floats(),
    TEXT,
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXT, st.integers(), max_size=2),
)


def taken_as_it_stands_or_refused(path: Path) -> str | None:
    """The line, without the path, with which a file is refused; where it is taken, what is read is exactly
    what DVC reads."""
    try:
        taken = Params.read(path)
    except PipelineError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1
        assert len(message) < 5_000
        return message.removeprefix(f"{path}: ")
    expected = load_yaml(str(path))
    finetuned = (expected.get("finetune") or {}).get("variants", {})
    for block in [*expected["variants"].values(), *finetuned.values()]:
        if isinstance(block["network"], dict) and block["network"].keys() == {"name"}:
            block["network"] = block["network"]["name"]  # which means the same
    assert taken.model_dump(exclude_unset=True) == expected
    return None


@given(key=st.sampled_from(sorted(every_key(tree()))), junk=JUNK)
@FEW
def test_junk_in_any_place_is_taken_as_it_is_or_refused_by_its_key(
    tmp_path: Path, key: str, junk: Any
) -> None:
    refused = taken_as_it_stands_or_refused(altered(tmp_path, key, junk))
    if refused is not None and not refused.startswith("cannot be read: "):  # a character that YAML has not
        parent, _, last = key.rpartition(".")
        assert key in refused or (parent in refused and last in refused)


TOKENS = """
1e-3 1E3 yes ~ 0x1F 0o17 010 1_000 .inf .NaN -0.0 1e400 2024-01-01 2001-12-14t21:59:43.1-05:00 '30' true
{ } [ ] [1,2 - : ? & * | > @ ` %YAML # *a &a *unknown <<: ! !!int'' !!str !!set !!binary !!omap
"""
PHRASES = ["", "a: b", "&a [1, *a]", "{<<: *a}", "!!int ''", "!!float x", "!!bool maybe", "!!timestamp x"]
PHRASES += ["!!python/name:os.system ''", "9" * 5_000, "0x" + "f" * 5_000, "'two\n\nlines'"]
PHRASES += ["\0", "\x1b", "\ufeff", "\u2028", *TOKENS.split()]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """The repository's params.yaml after one to three accidents of an editor."""
    lines = ORIGINAL.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        row, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        line, phrase = lines[row], draw(st.sampled_from(PHRASES))
        at = draw(st.integers(0, len(line)))
        edits = ["", lines[other], line + lines[other], f"  {line}", line.lstrip()]
        edits += [f"{line.split(':')[0]}: {phrase}\n", line[:at] + phrase + line[at:]]
        lines[row] = draw(st.sampled_from(edits))
    content = "".join(lines).encode()
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.one_of(st.just(b""), st.binary(max_size=4))) + content[at:]


@given(content=mangled())
@FEW
def test_mangled_text_is_taken_as_dvc_takes_it_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    taken_as_it_stands_or_refused(path)


def test_command_says_that_params_are_valid(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tree(), workplace)
    main(["check"])
    count = len(Params.read(PARAMS).models)
    assert capsys.readouterr().out == f"params.yaml: OK: {count} trainings on cifar10\n"


ADAM = "variants.shallow.optimizer"
LAYER = "variants.shallow.augmentation"
UNUSABLE = [
    ("split.sed", 1, "split.sed: unknown key; "),
    ("training.keras", "2.0.0", "training.keras is '2.0.0', but "),
    (f"{ADAM}.name", "adamm", f"{ADAM}.name: allowed: Adadelta, "),
    (f"{ADAM}.weight_decai", 0.1, f"{ADAM}.weight_decai: unknown argument; allowed: learning_rate, beta_1, "),
    (RATE, {"name": "cosine"}, f"{RATE}.name: allowed: CosineDecay, "),
    (RATE, {"name": "triangle", "low": 0}, f"{RATE}.low: unknown argument; allowed: peak, steps"),
    ("variants.shallow.network", {"name": "shallow", "width": 3}, "variants.shallow.network.width: unknown "),
    (LAYER, [{"name": "resizing"}], f"{LAYER}.0.name: allowed: AugMix, Cutout, RandAugment, "),
    (LAYER, [{"name": "random_flip", "axis": 1}], f"{LAYER}.0.axis: unknown argument; allowed: mode, seed, "),
    (LAYER, [{"name": "cutout", "pixel": 3}], f"{LAYER}.0.pixel: unknown argument; allowed: pixels"),
    (
        "variants.model_s.optimizer.learning_rate",
        {"name": "cosine_decay"},
        "variants.model_s.reduce_learning_",
    ),
]


@pytest.mark.parametrize(("key", "value", "reason"), UNUSABLE)
def test_check_refuses_what_needs_no_data_in_one_line(
    workplace: Path, key: str, value: Any, reason: str
) -> None:
    altered(workplace, key, value)
    assert refusal(main, ["check"]).startswith(f"error: params.yaml: {reason}")


def test_check_imports_no_tensorflow(workplace: Path) -> None:
    write(tree(), workplace)
    code = "import sys, pipeline.__main__ as p; p.main(['check']); sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
