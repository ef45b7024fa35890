"""Every command that a message, a docstring, a template or a page names exists and takes these arguments."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import mlflow.cli
import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from dvc.repo import Repo
from markdown_it import MarkdownIt

from pipeline.__main__ import Pipeline
from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
VARIABLES = {"RAY_ADDRESS", *re.findall(r"\$\(([A-Z]+)\)", MAKEFILE)}
COMMAND = re.compile(r"(?:[A-Z_]+=\S* )*(make|dvc|mlflow|python -m pipeline) .")
WRONG = (AssertionError, DvcParserError, ValueError, click.ClickException)
# What a person writes in its place.
EXAMPLES = {
    "N": "2",
    "SEED": "0",
    "STAGE": "fetch",
    "VARIANT": "shallow",
    "...": "a=1",
    "<database_uri>": "sqlite:///mlflow.db",
}


def in_code() -> Iterator[tuple[str, str]]:
    """The texts of the pipeline, docstrings too: commands in backticks, and lines that are one."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield from of_text(path, "".join(map(part_of, node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
                yield from of_text(path, node.value)


def part_of(node: ast.expr) -> str:
    """A part of an f-string. What it puts in is no name of a stage: a stage depends on what a variant is."""
    return str(node.value) if isinstance(node, ast.Constant) else "{value}"


def of_text(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """The commands of a text, in backticks or on lines of their own, without what explains them."""
    named = re.findall(r"`([^`]+)`", text)
    named += [line.strip().split("    ")[0] for line in text.splitlines() if line.startswith("    ")]
    yield from ((str(path.relative_to(ROOT)), command) for command in named)


def on_pages() -> Iterator[tuple[str, str]]:
    """The commands in README, docs, templates and YAML: in backticks, and in blocks for the shell."""
    pages = {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pipeline/**/*.md.jinja")}
    for path in [*ROOT.glob("*.yaml"), ROOT / "docs/own-images.yaml", ROOT / "Makefile"]:
        yield from of_text(path, path.read_text())
    for path in sorted(pages - {ROOT / "CHANGELOG.md"}):  # which names what is gone
        for token in MarkdownIt().parse(path.read_text()):
            named = [child.content for child in token.children or [] if child.type == "code_inline"]
            if token.type == "fence" and token.info == "bash":
                named = token.content.replace("\\\n", "").splitlines()
            yield from ((str(path.relative_to(ROOT)), command) for command in named)


def single(named: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each command of ours, Make, DVC or MLflow in these lines, on its own, as a shell would run it."""
    for where, line in named:
        for command in re.split(r"&&|\|\||[|;]", re.sub(r"\$\(.*?\)", "word", line)):
            text = re.sub(r"\[(.*?)\]", r"\1", " ".join(command.split()))
            if COMMAND.match(text):
                yield where, text


COMMANDS = sorted({(command, where) for where, command in [*single(in_code()), *single(on_pages())]})


def check(command: str) -> None:
    """Parse a command as its program would. Raises an error that says what is wrong."""
    words = [EXAMPLES.get(word, word) for word in shlex.split(command, comments=True)]
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    match words:
        case ["make", *arguments]:
            for word in arguments:
                assert word in TARGETS or word.partition("=")[0] in VARIABLES, f"make has no {word}"
        case ["python", "-m", "pipeline", *arguments]:
            parse(Pipeline("pipeline"), arguments)
        case ["mlflow", *arguments]:
            parse(mlflow.cli.cli, arguments)
        case ["dvc", *arguments]:
            parsed = get_main_parser().parse_args(arguments)
            if arguments[0] == "repro":
                assert stages().issuperset(parsed.targets), f"no stage among {parsed.targets}"


def parse(group: click.Command, arguments: list[str]) -> None:
    """Parse the arguments of a command of a group, or of a group in it."""
    context = click.Context(group)
    while isinstance(group, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = group.get_command(context, name)
        assert found is not None, f"no command {name}"
        group = found
    if arguments not in ([], ["--help"]):
        group.make_context("command", arguments, ignore_unknown_options=False)


@cache
def stages() -> set[str]:
    """The names of DVC's stages, those without a variant's name too."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing for stage in repo.index.stages}


def test_commands_are_found_wherever_they_are_written() -> None:
    named, pages = {command for command, _ in COMMANDS}, {where for _, where in COMMANDS}
    assert {"make repro", "dvc repro select", "mlflow ui", "dvc queue start", "make promote FORCE=1"} <= named
    assert {"README.md", "docs/using.md", "pipeline/stages/promote/gate.py"} <= pages


def test_every_command_that_is_written_exists() -> None:
    wrong = []
    for command, where in COMMANDS:
        try:
            check(command)
        except WRONG as error:
            wrong.append(f"{where}: {command}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "command",
    [
        "make nonsense",
        "make promote STRENGTH=1",
        "python -m pipeline nonsense",
        "python -m pipeline train shallow",
        "python -m pipeline search shallow --nonsense",
        "dvc repro train@nonsense-0",
        "dvc nonsense",
        "mlflow nonsense",
        "mlflow ui --nonsense",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(WRONG):
        check(command)
