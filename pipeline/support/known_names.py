"""The networks, metrics and classes of Keras that params.yaml may name, and their arguments.

They are read from source, since importing it would import Keras or scikit-learn, which takes seconds.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
NETWORKS = PACKAGE / "stages/recipes/networks.py"
METRICS = PACKAGE / "shared/metrics.py"
NOT_IN_PARAMS = {"self", "inputs", "name"}  # arguments that params.yaml does not set


def network_names() -> list[str]:
    """The functions of networks.py."""
    names = [node.name for node in _statements(NETWORKS) if isinstance(node, ast.FunctionDef)]
    return [name for name in names if not name.startswith("_")]


def network_arguments(name: str) -> list[str]:
    """The arguments of a function of networks.py that params.yaml sets."""
    [function] = [
        node for node in _statements(NETWORKS) if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return _arguments(function)


def application_names() -> list[str]:
    """The networks of keras.applications."""
    return sorted(keras_classes("applications"))


@cache
def keras_classes(package: str) -> dict[str, Path]:
    """The source of each class of a package of Keras, or of each network, by its name."""
    imports = [
        node for node in _statements(_keras() / package / "__init__.py") if isinstance(node, ast.ImportFrom)
    ]
    return {
        alias.name: (_keras().parent / str(node.module).replace(".", "/")).with_suffix(".py")
        for node in imports
        for alias in node.names
        if alias.name[0].isupper()
    }


def class_arguments(source: Path, name: str) -> list[str]:
    """The arguments with which a class of a module is made."""
    kinds = {node.name: node for node in _statements(source) if isinstance(node, ast.ClassDef)}
    for node in kinds[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _arguments(node)
    [base, *_] = kinds[name].bases
    return class_arguments(source, ast.unparse(base))


def _keras() -> Path:
    """The folder of the installed Keras."""
    found = find_spec("keras")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def _arguments(function: ast.FunctionDef) -> list[str]:
    named = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
    return [name for name in named if name not in NOT_IN_PARAMS]


def metric_names() -> list[str]:
    """The metrics of metrics.py."""
    nodes = _statements(METRICS)
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list]
    tables = [node.value for node in nodes if isinstance(node, ast.AnnAssign)]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return names + [str(key.value) for key in keys if isinstance(key, ast.Constant)]


@cache
def _statements(source: Path) -> list[ast.stmt]:
    return ast.parse(source.read_text()).body
