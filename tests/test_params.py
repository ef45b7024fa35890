"""params.yaml: a good one is read, and a bad one is refused in one line that says what to change."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.errors import PipelineError
from pipeline.hyperparameters import Hyperparameters, network_names, read_params
from pipeline.params import Params

ROOT = Path(__file__).parents[1]
ORIGINAL = (ROOT / "params.yaml").read_text()
MISSING = object()

Altered = Callable[..., Path]


def tree() -> dict[str, Any]:
    return YAML(typ="safe").load(ORIGINAL)


def place(content: Any, key: str) -> tuple[Any, str]:
    """The section that holds a dotted key, and the key's last part."""
    *parents, last = key.split(".")
    for parent in parents:
        content = content[parent]
    return content, last


def scalar_keys(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from scalar_keys(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key


def write(content: Any, folder: Path) -> Path:
    """Write `content` as a params.yaml: JSON is YAML."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(content, ensure_ascii=False))
    return path


@pytest.fixture
def altered(tmp_path: Path) -> Altered:
    """Writes the repository's params.yaml with one dotted key set to another value, or left out."""

    def alter(key: str, value: Any = MISSING) -> Path:
        content = tree()
        section, last = place(content, key)
        if value is MISSING:
            del section[last]
        else:
            section[last] = value
        return write(content, tmp_path)

    return alter


def problem(path: Path) -> str:
    """What is said about a params.yaml that is wrong, always in one line that names the file."""
    with pytest.raises(PipelineError) as caught:
        read_params(Params, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def test_repository_params_name_fourteen_trainings() -> None:
    params = read_params(Params, ROOT / "params.yaml")
    assert len(params.trained_models) == 14
    assert params.trained_models[0] == ("translate", 0)
    assert params.trained_models[-1] == ("batchnorm_subset", 0)
    assert params.data.dataset == "cifar10"


def test_every_variant_is_trained_with_every_seed(altered: Altered) -> None:
    params = read_params(Params, altered("seeds", [5, 7]))
    assert len(params.trained_models) == 28
    assert params.trained_models[:2] == [("translate", 5), ("translate", 7)]


def test_name_of_the_data_names_the_dataset(altered: Altered) -> None:
    assert read_params(Params, altered("data.name", "my-birds")).data.dataset == "my-birds"


def test_params_cannot_be_changed_once_read() -> None:
    params = read_params(Params, ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.split.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("spilt", "data, split, training, seeds, variants, finetune, promotion, serving, published"),
        ("split.sed", "strategy, fraction, seed"),
        ("training.thread", "threads, precision, tensorflow, keras"),
        (
            "variants.shallow.epoch",
            "network, optimizer, batch_size, epochs, training_images, early_stopping, reduce_learning_rate",
        ),
        ("variants.shallow.optimizer.momentum", "name, learning_rate"),
        ("variants.baseline.early_stopping.patient", "monitor, patience, restore_best_weights"),
        ("variants.model_s.reduce_learning_rate.factors", "monitor, factor, patience"),
        ("finetune.from", "init_from, variants"),
        (
            "finetune.variants.batchnorm_subset.early_stopping.patient",
            "monitor, patience, restore_best_weights",
        ),
    ],
)
def test_unknown_key_is_named_with_the_allowed_ones(altered: Altered, key: str, allowed: str) -> None:
    assert problem(altered(key, 1)).endswith(f": {key}: unknown key; allowed: {allowed}")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("variants.shallow.epochs", "30", "should be a valid integer; received '30'"),
        ("variants.shallow.epochs", 1.5, "should be a valid integer; received 1.5"),
        ("variants.shallow.epochs", True, "should be a valid integer; received True"),
        ("variants.shallow.optimizer", "adam", "received 'adam'"),
        ("variants.shallow.optimizer.learning_rate", "fast", "should be a valid number; received 'fast'"),
        ("variants.baseline.early_stopping.restore_best_weights", 1, "should be a valid boolean; received 1"),
        ("variants.shallow", None, "received None"),
        ("training.keras", 3.15, "should be a valid string; received 3.15"),
        ("data.archives", "archive.tar.gz", "should be a valid list; received 'archive.tar.gz'"),
    ],
)
def test_wrong_type_is_named_and_not_converted(altered: Altered, key: str, value: Any, expected: str) -> None:
    message = problem(altered(key, value))
    assert f": {key}: " in message
    assert message.endswith(expected)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data.source", "cifar100", "'cifar10', 'digits' or 'directory'"),
        ("data.name", "my birds", "pattern"),
        ("data.sha256", "6D95", "pattern"),
        ("split.strategy", "random", "'stratified', 'first' or 'batch'"),
        ("split.fraction", 0.0, "greater than 0"),
        ("split.fraction", 1.0, "less than 1"),
        ("split.seed", 2**31, "less than 2147483648"),
        ("training.threads", 0, "greater than 0"),
        ("seeds", [], "at least 1 item"),
        ("variants.shallow.batch_size", 0, "greater than 0"),
        ("variants.shallow.epochs", -1, "greater than 0"),
        ("variants.shallow.training_images", 0, "greater than 0"),
        ("variants.shallow.optimizer.name", "adamw", "'adam', 'rmsprop' or 'sgd'"),
        ("variants.shallow.optimizer.learning_rate", 0, "greater than 0"),
        ("variants.baseline.early_stopping.monitor", "loss", "'val_loss' or 'val_accuracy'"),
        ("variants.baseline.early_stopping.patience", -1, "greater than or equal to 0"),
        ("variants.model_s.reduce_learning_rate.factor", 1, "less than 1"),
        ("promotion.margin", 1, "less than 1"),
        ("serving.batch_limit", 0, "greater than 0"),
        ("published.shallow", 60.05, "less than or equal to 1"),
    ],
)
def test_value_out_of_range_is_refused_with_what_is_allowed(
    altered: Altered, key: str, value: Any, allowed: str
) -> None:
    message = problem(altered(key, value))
    assert f": {key}: " in message
    assert allowed in message
    assert message.endswith(f"received {value!r}")


@pytest.mark.parametrize("spelling", [".inf", ".nan"])
def test_number_that_is_not_finite_is_refused(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL.replace("learning_rate: 0.01}", f"learning_rate: {spelling}}}"))
    assert "variants.augmented_sgd.optimizer.learning_rate" in problem(path)


@pytest.mark.parametrize("key", ["Shallow", "shallow-2", "2_shallow", ""])
def test_variant_name_that_is_no_identifier_is_refused(altered: Altered, key: str) -> None:
    content = tree()
    content["variants"][key] = content["variants"]["shallow"]
    assert "pattern" in problem(altered("variants", content["variants"]))


def test_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert read_params(Params, path) == read_params(Params, ROOT / "params.yaml")


@pytest.mark.parametrize(
    "key",
    [
        "training",
        "split.seed",
        "variants.shallow.network",
        "variants.shallow.optimizer.learning_rate",
        "variants.baseline.early_stopping.patience",
        "finetune.init_from",
    ],
)
def test_missing_key_is_named(altered: Altered, key: str) -> None:
    assert problem(altered(key)).endswith(f": {key}: missing")


def test_all_problems_are_in_the_one_line(tmp_path: Path) -> None:
    content = tree()
    content["sedes"] = content.pop("seeds")
    content["split"]["seed"] = -1
    message = problem(write(content, tmp_path))
    assert all(found in message for found in ("seeds: missing", "sedes: unknown key", "split.seed: "))


def test_duplicated_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL + "\nseeds: [1]\n")
    assert 'duplicate key "seeds"' in problem(path)


def test_unknown_network_is_refused_with_the_networks_there_are(altered: Altered) -> None:
    message = problem(altered("variants.shallow.network", "resnet"))
    assert message.endswith(
        f": variants.shallow.network: allowed: {', '.join(network_names())}; received 'resnet'"
    )
    assert {"shallow", "vgg3", "batchnorm"} <= set(network_names())


def test_name_in_both_lists_of_variants_is_refused(altered: Altered) -> None:
    message = problem(altered("finetune.variants.shallow", tree()["variants"]["shallow"]))
    assert "finetune.variants: in variants too: shallow" in message


def test_unknown_variant_to_start_from_is_refused_with_those_there_are(altered: Altered) -> None:
    message = problem(altered("finetune.init_from", "resnet"))
    assert "finetune.init_from: allowed: translate, shallow, augmented," in message


def test_variant_to_start_from_does_not_matter_without_variants_that_do(altered: Altered) -> None:
    params = read_params(Params, altered("finetune", {"init_from": "none", "variants": {}}))
    assert len(params.trained_models) == 13


def test_seed_listed_twice_is_refused(altered: Altered) -> None:
    assert "seeds: each is allowed once; received [0, 1, 0]" in problem(altered("seeds", [0, 1, 0]))


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        ({"source": "directory", "name": "birds"}, "source directory needs directory"),
        ({"source": "directory", "directory": "birds"}, "source directory needs name"),
        ({"source": "cifar10", "sha256": "0" * 64}, "source cifar10 needs archives"),
        ({"source": "cifar10", "archives": []}, "source cifar10 needs archives"),
        ({"source": "cifar10", "archives": ["a.tar"]}, "source cifar10 needs sha256"),
    ],
)
def test_source_without_what_it_needs_is_refused(altered: Altered, data: dict[str, Any], needed: str) -> None:
    assert f": data: {needed}" in problem(altered("data", data))


@pytest.mark.parametrize(
    "data", [{"source": "digits"}, {"source": "directory", "directory": "birds", "name": "b"}]
)
def test_source_with_what_it_needs_is_taken(altered: Altered, data: dict[str, Any]) -> None:
    assert read_params(Params, altered("data", data)).data.source == data["source"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"a: [",
        b"a: 'open",
        b"a:\n\t- b",
        b"a: \x00",
        b"a: *unknown",
        b"a: !!python/object:os.system x",
        b"---\na: 1\n---\nb: 2\n",
        b"a: 2024-99-99",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert problem(path).startswith(f"{path}: cannot be read: ")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in problem(tmp_path / "params.yaml")


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in problem(tmp_path)


@pytest.mark.parametrize("content", ["", "# nothing but this\n", "- a\n- b\n", "just words\n", "3\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert ": the file: a mapping of keys is allowed; received" in problem(path)


def test_key_with_a_line_break_is_refused_in_one_line(altered: Altered) -> None:
    assert "unknown key" in problem(altered("two\nlines", 1))


def test_training_reads_its_sections_and_leaves_the_others_alone(altered: Altered) -> None:
    path = altered("promotion", "nonsense")
    assert read_params(Hyperparameters, path).variant("shallow").network == "shallow"
    with pytest.raises(PipelineError, match="no variant 'resnet'; allowed: augmented, augmented_sgd, "):
        read_params(Hyperparameters, path).variant("resnet")


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="utf-8")),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), max_size=2),
)


@given(key=st.sampled_from(sorted(scalar_keys(tree()))), junk=JUNK)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_junk_in_any_place_is_taken_or_refused_in_one_line(altered: Altered, key: str, junk: Any) -> None:
    path = altered(key, junk)
    outcome: Params | PipelineError
    try:
        outcome = read_params(Params, path)
    except PipelineError as error:
        outcome = error
    assert isinstance(outcome, Params) or len(str(outcome).splitlines()) == 1


def check_command(folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.params` as a person runs it in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.params"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_command_says_that_params_are_fine(tmp_path: Path) -> None:
    write(tree(), tmp_path)
    done = check_command(tmp_path)
    assert (done.returncode, done.stdout) == (0, "params.yaml: fine: 14 trainings on cifar10\n")


@pytest.mark.parametrize(
    ("key", "value"), [("split.sed", 1), ("training.keras", "2.0.0"), ("data", "\ud800")]
)
def test_command_ends_with_one_line_and_no_traceback(tmp_path: Path, key: str, value: Any) -> None:
    content = tree()
    section, last = place(content, key)
    section[last] = value
    (tmp_path / "params.yaml").write_text(json.dumps(content))
    done = check_command(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: params.yaml: ")
    assert done.stderr.count("\n") == 1
