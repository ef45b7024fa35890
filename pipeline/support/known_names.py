"""The networks and metrics that params.yaml may name.

They are read from source, since importing it would import Keras or scikit-learn.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
NETWORKS = PACKAGE / "stages/recipes/networks.py"
METRICS = PACKAGE / "shared/metrics.py"


def network_names() -> list[str]:
    """The functions of networks.py."""
    names = [node.name for node in _statements(NETWORKS) if isinstance(node, ast.FunctionDef)]
    return [name for name in names if not name.startswith("_")]


def application_names() -> list[str]:
    """The networks of keras.applications."""
    keras = find_spec("keras")
    assert keras is not None  # it is installed
    [package] = keras.submodule_search_locations or []
    imports = _statements(Path(package) / "applications/__init__.py")
    names = [alias.name for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names]
    return sorted(name for name in names if name[0].isupper())


def metric_names() -> list[str]:
    """The metrics of metrics.py."""
    nodes = _statements(METRICS)
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list]
    tables = [node.value for node in nodes if isinstance(node, ast.AugAssign)]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return names + [str(key.value) for key in keys if isinstance(key, ast.Constant)]


def _statements(source: Path) -> list[ast.stmt]:
    return ast.parse(source.read_text()).body
