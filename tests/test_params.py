"""params.yaml: a good one is read, and a bad one is refused in one line that says what to change."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.errors import PipelineError
from pipeline.params import Params
from pipeline.settings.hyperparameters import Hyperparameters, network_names
from pipeline.settings.reading import read_params

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
        ("spilt", "training, seeds, variants, finetune, data, split, promotion, serving, published"),
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
        ("training.threads", 1025, "less than or equal to 1024"),
        ("variants.shallow.epochs", 0, "greater than 0"),
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


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("\nseeds:", "\nseeds: [1]\nseeds:", 25, "seeds"),
        ("  seed: 0 ", "  seed: 1\n  seed: 0 ", 17, "seed"),
        ("  shallow:\n", "  shallow: {}\n  shallow:\n", 36, "shallow"),
    ],
)
def test_duplicated_key_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, key: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL.replace(old, new, 1))
    assert f': cannot be read: line {line}: found duplicate key "{key}"' in problem(path)


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


@pytest.mark.parametrize("start", ["batchnorm_subset", "second"])
def test_variant_cannot_start_from_itself_or_another_that_is_finetuned(altered: Altered, start: str) -> None:
    finetune = tree()["finetune"]
    finetune["variants"]["second"] = finetune["variants"]["batchnorm_subset"]
    finetune["init_from"] = start
    assert problem(altered("finetune", finetune)).endswith(f"; received {start!r}")


def test_batch_larger_than_the_images_that_a_variant_takes_is_refused(altered: Altered) -> None:
    message = problem(altered("variants.shallow.training_images", 31))
    assert ": variants.shallow: batch_size: at most training_images, 31, is allowed; " in message


def test_names_that_training_needs_are_checked_for_it_too(altered: Altered) -> None:
    with pytest.raises(PipelineError, match=r"finetune\.init_from: allowed: translate, "):
        read_params(Hyperparameters, altered("finetune.init_from", "resnet"))


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
        b"a: !!int ''",
        b"a: !!bool maybe",
        b"a: !!timestamp x",
        b"{a: 1}: b",
        b"a: " + b"9" * 5_000,
        b"[" * 5_000,
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


def test_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # may read everything
        os.seteuid(65534)
    try:
        assert "cannot be read: [Errno 13] Permission denied" in problem(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("seeds", "2024-01-01", "should be a valid list; received datetime.date(2024, 1, 1)"),
        ("seeds", "[0x" + "f" * 5_000 + "]", "less than 2147483648; received an integer of 20000 bits"),
        ("seeds", "!!set {0, 1}", "should be a valid list; received {"),
        ("seeds", "&seeds [0, *seeds]", "should be a valid integer; received "),
        ("data", "&data {source: digits, name: *data}", "should be a valid string; received "),
        ("promotion", "{margin: .NaN}", "should be a finite number; received nan"),
        ("promotion", "{1: 2, margin: 0.1}", "received 1"),
        ("promotion", "{margin: yes}", "should be a valid number; received 'yes'"),
        ("promotion", "{margin: 0.1, <<: {margins: 1}}", "unknown key; allowed: margin"),
        ("promotion", "!!python/tuple [1]", "could not determine a constructor"),
    ],
)
def test_what_only_yaml_can_say_is_refused_by_its_key(tmp_path: Path, key: str, text: str, told: str) -> None:
    content = tree()
    del content[key]
    path = write(content, tmp_path)
    path.write_text(f'{path.read_text()[:-1]},\n "{key}": {text}}}\n')
    message = problem(path)
    assert told in message
    assert f": {key}" in message or "line 2: " in message
    assert len(message) < 600


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    old = "    optimizer: {name: adam, learning_rate: 0.001}\n"
    text = ORIGINAL.replace(old, "    optimizer: &adam {name: adam, learning_rate: 1e-3}\n", 1)
    path.write_text(text.replace(old, "    optimizer: {<<: *adam}\n", 1))
    assert "<<" in path.read_text()
    assert read_params(Params, path) == read_params(Params, ROOT / "params.yaml")


def test_a_thousand_laughs_are_refused_in_a_short_line(tmp_path: Path) -> None:
    rows = ["seeds: [&a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f", &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "params.yaml").write_text("\n".join([*rows, "]\n"]))
    assert len(problem(tmp_path / "params.yaml")) < 5_000


def test_many_problems_are_told_by_the_first_ten(altered: Altered) -> None:
    message = problem(altered("seeds", [-1] * 1_000))
    assert "seeds.9: " in message
    assert "seeds.10: " not in message
    assert message.endswith("; and 990 more")


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


def every_key(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from every_key(value, f"{prefix}{key}.")


TEXT = st.text(st.characters(codec="utf-8"))
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
        params = read_params(Params, path)
    except PipelineError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1
        assert len(message) < 5_000
        return message.removeprefix(f"{path}: ")
    assert params.model_dump(exclude_unset=True) == load_yaml(str(path))
    return None


@given(key=st.sampled_from(sorted(every_key(tree()))), junk=JUNK)
@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_in_any_place_is_taken_as_it_is_or_refused_by_its_key(
    altered: Altered, key: str, junk: Any
) -> None:
    refused = taken_as_it_stands_or_refused(altered(key, junk))
    if refused is not None and not refused.startswith("cannot be read: "):  # a character that YAML has not
        parent, _, last = key.rpartition(".")
        assert key in refused or (parent in refused and last in refused)


@given(key=st.sampled_from(sorted(every_key(tree()))))
@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_key_left_out_is_named_unless_it_may_be(altered: Altered, key: str) -> None:
    refused = taken_as_it_stands_or_refused(altered(key))
    section, _, last = key.rpartition(".")
    may_be_left_out = (
        last in {"name", "directory", "training_images", "early_stopping", "reduce_learning_rate"}
        or section in {"variants", "finetune.variants", "published"}
    ) and not section.endswith("optimizer")
    if not may_be_left_out:
        assert refused is not None
        assert last in refused
    elif refused is not None:
        assert key == "variants.batchnorm"  # which another starts from


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
        accident = draw(st.sampled_from(["deleted", "doubled", "swapped", "indented", "value", "token"]))
        if accident == "deleted":
            del lines[row]
        elif accident == "doubled":
            lines.insert(other, lines[row])
        elif accident == "swapped":
            lines[row], lines[other] = lines[other], lines[row]
        elif accident == "indented":
            lines[row] = " " * draw(st.integers(0, 7)) + lines[row].lstrip(" ")
        elif accident == "value":
            lines[row] = f"{lines[row].split(':')[0]}: {draw(st.sampled_from(PHRASES))}\n"
        else:
            at = draw(st.integers(0, len(lines[row])))
            lines[row] = lines[row][:at] + draw(st.sampled_from(PHRASES)) + lines[row][at:]
    content = "".join(lines).encode()
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.one_of(st.just(b""), st.binary(max_size=4))) + content[at:]


@given(content=mangled())
@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mangled_text_is_taken_as_dvc_takes_it_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    taken_as_it_stands_or_refused(path)


@pytest.mark.faults
@pytest.mark.timeout(900)
@given(content=mangled())
@settings(max_examples=1_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_thousand_other_mangled_texts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    taken_as_it_stands_or_refused(path)


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
