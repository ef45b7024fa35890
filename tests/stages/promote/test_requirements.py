"""The served model in an environment that has its own requirements and nothing else, as in a container."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.conftest import BIN, ROOT, Clone

ANSWER = """
import json, sys
import mlflow.pyfunc, pandas
request = json.load(sys.stdin)["dataframe_records"]
[answer] = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame(request))
print(json.dumps(answer))
"""


@pytest.mark.faults  # installs TensorFlow
def test_its_own_requirements_suffice(clone: Clone, tmp_path: Path) -> None:
    """At the versions of the lock, which are in uv's cache."""
    version = mlflow.MlflowClient(clone.store).get_model_version_by_alias("digits", "champion")
    model = next(
        (clone.folder / "mlruns").glob(f"*/models/{str(version.source).rsplit('/', 1)[1]}/artifacts")
    )
    python = str(tmp_path / "environment/bin/python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "environment")], check=True)
    install = [str(BIN / "uv"), "pip", "install", "--quiet", f"--python={python}"]
    install += [f"--requirement={model / 'requirements.txt'}", f"--constraint={ROOT / 'requirements.lock'}"]
    subprocess.run(install, check=True)
    assert subprocess.run([python, "-c", "import dvc"], capture_output=True).returncode == 1
    request = (clone.folder / "quickstart/request.json").read_text()
    command = [python, "-I", "-c", ANSWER, str(model)]
    done = subprocess.run(
        command, cwd=tmp_path, input=request, capture_output=True, text=True, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["label"] in answer["probabilities"]
    assert answer["confidence"] == max(answer["probabilities"].values())
