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

from pipeline.params import Params
from pipeline.shared.errors import PipelineError
from pipeline.shared.load_params import load_params
from pipeline.shared.trained import Trained
from pipeline.shared.variant import Variant, network_names
from tests.conftest import ROOT

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
        load_params(Params, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def test_repository_params_name_sixteen_trainings() -> None:
    params = load_params(Params, ROOT / "params.yaml")
    assert len(params.trained) == 16
    assert [params.trained[0], params.trained[-1]] == [
        Trained("translate", 0),
        Trained("batchnorm_subset", 0),
    ]
    assert params.data.dataset == "cifar10"


def test_every_variant_is_trained_with_every_seed(altered: Altered) -> None:
    params = load_params(Params, altered("seeds", [5, 7]))
    assert len(params.trained) == 32
    assert params.trained[:2] == [Trained("translate", 5), Trained("translate", 7)]


def test_name_of_the_data_names_the_dataset(altered: Altered) -> None:
    assert load_params(Params, altered("data.name", "my-birds")).data.dataset == "my-birds"


def test_finetuning_is_optional(altered: Altered) -> None:
    assert len(load_params(Params, altered("finetune")).trained) == 15
    none = altered("finetune", {"init_from": "none", "variants": {}})
    assert len(load_params(Params, none).trained) == 15


@pytest.mark.parametrize(
    "data",
    [
        {"source": "digits"},
        {"source": "directory", "folders": {"train": "birds", "test": "b"}, "name": "b", "image_size": 64},
    ],
)
def test_other_sources_need_only_their_own_keys(altered: Altered, data: dict[str, Any]) -> None:
    assert load_params(Params, altered("data", data)).data.source == data["source"]


def test_options_of_a_variant_are_read(altered: Altered) -> None:
    block = tree()["variants"]["shallow"] | {
        "network": {"name": "vgg3", "width": 32},
        "optimizer": {
            "name": "sgd",
            "learning_rate": {"name": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 100},
            "momentum": 0.9,
        },
        "label_smoothing": 0.1,
    }
    variant = load_params(Params, altered("variants.shallow", block)).variants["shallow"]
    assert variant.model_dump(exclude_none=True) == block
    assert variant.network.arguments == {"width": 32}
    assert set(variant.optimizer.arguments) == {"learning_rate", "momentum"}


SHALLOW = tree()["variants"]["shallow"]
REFUSED = [
    (
        "spilt",
        1,
        ": spilt: unknown key; allowed: data, split, training, seeds, ",
    ),
    ("split.sed", 1, ": split.sed: unknown key; allowed: strategy, fraction, seed, duplicates"),
    (
        "data.directories",
        "x",
        ": data.directories: unknown key; allowed: source, name, archives, sha256, folders,",
    ),
    ("variants.shallow.epoch", 1, ": variants.shallow.epoch: unknown key; allowed: network, optimizer, "),
    ("variants.baseline.early_stopping.patient", 1, "allowed: monitor, patience, restore_best_weights"),
    ("finetune.variants.batchnorm_subset.epoch", 1, ".epoch: unknown key; allowed: network, optimizer, "),
    ("training", MISSING, ": training: missing"),
    ("variants.shallow.network", MISSING, ": variants.shallow.network: missing"),
    (
        "variants.shallow.optimizer.learning_rate",
        MISSING,
        ": variants.shallow.optimizer.learning_rate: missing",
    ),
    ("finetune.init_from", MISSING, ": finetune.init_from: missing"),
    ("data.source", MISSING, ": data.source: missing"),
    ("data.sha256", MISSING, ": data.sha256: missing"),
    ("data", {"source": "directory", "name": "birds"}, ": data: folders must name a folder for test and "),
    ("data", {"source": "directory", "name": "b", "folders": {"test": "a"}}, ": data: folders must name "),
    (
        "data",
        {"source": "directory", "name": "b", "folders": {"val": "a"}},
        ".folders.val: must be test, train,",
    ),
    ("data.image_size", 64, ": data.image_size: must be 32; received 64"),
    ("data.archives", [], ": data.archives: must not be empty; received []"),
    ("data.name", "n" * 101, ": data.name: must be a letter or digit and at most 99 letters, "),
    ("variants", {"v" * 101: SHALLOW}, ": must be a lower-case letter and at most 99 "),
    ("variants.shallow.optimizer.learning_rate", 1e-320, "0.0000000001; received 1e-320"),
    ("data", {"source": "directory", "folders": {}}, ": data.name: missing"),
    (
        "data.source",
        "cifar100",
        ": data.source: allowed: 'cifar10', 'digits', 'directory'; ",
    ),
    ("variants.shallow.epochs", "30", ".epochs: must be a whole number; received '30'"),
    ("variants.shallow.epochs", 1.5, ".epochs: must be a whole number; received 1.5"),
    ("variants.shallow", None, ": variants.shallow: must be a mapping of keys; received None"),
    ("variants.shallow.optimizer", "adam", ".optimizer: must be a mapping of keys; received 'adam'"),
    ("variants.shallow.optimizer.learning_rate", "fast", "must be a number; received 'fast'"),
    (
        "variants.shallow.optimizer.learning_rate",
        0,
        ".learning_rate: must be greater than or equal to 0.0000000001; received 0",
    ),
    ("variants.shallow.optimizer.learning_rate", {"decay": 1}, ".learning_rate.name: missing"),
    ("variants.shallow.network", "resnet", "received 'resnet'"),
    ("variants.shallow.label_smoothing", 1, ".label_smoothing: must be less than 1; received 1"),
    ("variants", {"two-words": SHALLOW}, ": variants.two-words: must be a lower-case letter and "),
    ("variants", {}, ": variants: must not be empty; received {}"),
    ("seeds", [0, 1, 0], "seeds: each is allowed once; received [0, 1, 0]"),
    ("finetune.variants.shallow", SHALLOW, "finetune.variants: in variants too: shallow"),
    ("finetune.init_from", "resnet", "finetune.init_from: allowed: translate, shallow, augmented,"),
    ("finetune.init_from", "batchnorm_subset", "finetune.init_from: allowed: translate, "),
    ("finetune.init_from", "vgg3", "finetune.variants.batchnorm_subset.network: must be 'vgg3', that of "),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_wrong_value_is_refused_by_its_key(altered: Altered, key: str, value: Any, message: str) -> None:
    assert message in problem(altered(key, value))


def test_unknown_network_is_refused_with_the_networks_there_are(altered: Altered) -> None:
    allowed = f": variants.shallow.network: allowed: {', '.join(network_names())}; received 'resnet'"
    assert problem(altered("variants.shallow.network", "resnet")).endswith(allowed)


def test_all_problems_are_in_the_one_line(tmp_path: Path) -> None:
    content = tree()
    content["sedes"] = content.pop("seeds")
    content["split"]["seed"] = -1
    message = problem(write(content, tmp_path))
    assert all(found in message for found in ("seeds: missing", "sedes: unknown key", "split.seed: "))


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("\nseeds:", "\nseeds: [1]\nseeds:", 27, "seeds"),
        ("  seed: 0 ", "  seed: 1\n  seed: 0 ", 18, "seed"),
        ("  shallow:\n", "  shallow: {}\n  shallow:\n", 39, "shallow"),
    ],
)
def test_duplicated_key_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, key: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(ORIGINAL.replace(old, new, 1))
    assert f': cannot be read: line {line}: found duplicate key "{key}"' in problem(path)


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
        b"".join(b"unknown%d: 1\n" % n for n in range(20_000)),
        b"a0: &a0 {x: 1}\n"
        + b"".join(
            b"a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)
        ),
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
    ("key", "text", "expected"),
    [
        ("seeds", "2024-01-01", "must be a list; received datetime.date(2024, 1, 1)"),
        ("seeds", "[0x" + "f" * 5_000 + "]", "less than 2147483648; received an integer of 20000 bits"),
        ("seeds", "!!set {0, 1}", "must be a list; received {"),
        ("seeds", "&seeds [0, *seeds]", "must be a whole number; received "),
        ("data", "&data {source: digits, name: *data}", "must be text; received "),
        ("promotion", "{margin: .NaN}", "must be a finite number; received nan"),
        ("promotion", "{1: 2, margin: 0.1}", "received 1"),
        ("promotion", "{margin: yes}", "must be a number; received 'yes'"),
        ("promotion", "{margin: 0.1, <<: {margins: 1}}", "unknown key; allowed: margin"),
        ("promotion", "!!python/tuple [1]", "could not determine a constructor"),
    ],
)
def test_what_only_yaml_can_say_is_refused_by_its_key(
    tmp_path: Path, key: str, text: str, expected: str
) -> None:
    content = tree()
    del content[key]
    path = write(content, tmp_path)
    path.write_text(f'{path.read_text()[:-1]},\n "{key}": {text}}}\n')
    message = problem(path)
    assert expected in message
    assert f": {key}" in message or "line 2: " in message
    assert len(message) < 600


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    old = "    optimizer: {name: adam, learning_rate: 0.001}\n"
    text = ORIGINAL.replace(old, "    optimizer: &adam {name: adam, learning_rate: 1e-3}\n", 1)
    path.write_text(text.replace(old, "    optimizer: {<<: *adam}\n", 1))
    assert "<<" in path.read_text()
    assert load_params(Params, path) == load_params(Params, ROOT / "params.yaml")


def test_a_thousand_laughs_are_refused_in_a_short_line(tmp_path: Path) -> None:
    rows = ["seeds: [&a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f", &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "params.yaml").write_text("\n".join([*rows, "]\n"]))
    assert len(problem(tmp_path / "params.yaml")) < 5_000


def test_many_problems_are_reported_by_the_first_ten(altered: Altered) -> None:
    message = problem(altered("seeds", [-1] * 1_000))
    assert "seeds.9: " in message
    assert "seeds.10: " not in message
    assert message.endswith("; and 990 more")


@pytest.mark.parametrize("content", ["", "# nothing but this\n", "- a\n- b\n", "just words\n", "3\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert ": the file: must be a mapping of keys; received" in problem(path)


def test_key_with_a_line_break_is_refused_in_one_line(altered: Altered) -> None:
    assert "unknown key" in problem(altered("two\nlines", 1))


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
        params = load_params(Params, path)
    except PipelineError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1
        assert len(message) < 5_000
        return message.removeprefix(f"{path}: ")
    expected = load_yaml(str(path))
    for block in [
        *expected["variants"].values(),
        *(expected.get("finetune") or {}).get("variants", {}).values(),
    ]:
        if isinstance(block["network"], dict) and block["network"].keys() == {"name"}:
            block["network"] = block["network"]["name"]  # which means the same
    assert params.model_dump(exclude_unset=True) == expected
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


OPTIONAL = {"data.name", "data.folders", "data.image_size", "split.duplicates", "finetune", "published"}
OPTIONAL_IN_A_BLOCK = {name for name, field in Variant.model_fields.items() if not field.is_required()}


@given(key=st.sampled_from(sorted(every_key(tree()))))
@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_key_left_out_is_named_unless_it_may_be(altered: Altered, key: str) -> None:
    refused = taken_as_it_stands_or_refused(altered(key))
    section, _, last = key.rpartition(".")
    is_argument = section.endswith((".network", ".optimizer", ".learning_rate")) and last not in {
        "name",
        "learning_rate",
    }
    may_be_left_out = (
        key in OPTIONAL
        or is_argument
        or section in {"variants", "finetune.variants", "published"}
        or (section.rpartition(".")[0].endswith("variants") and last in OPTIONAL_IN_A_BLOCK)
    )
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
    assert (done.returncode, done.stdout) == (0, "params.yaml: fine: 16 trainings on cifar10\n")


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
