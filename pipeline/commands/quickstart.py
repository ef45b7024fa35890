"""The whole pipeline in minutes, on scikit-learn's handwritten digits, in a folder of its own.

    python -m pipeline quickstart

Copies the pipeline of this checkout to quickstart/, with quickstart.yaml as its params.yaml, runs all stages
there, and prints what to look at next. Its runs and its model go to this checkout's MLflow store; its report
and metrics stay in quickstart/. Nothing else is touched.
"""

import contextlib
import json
import logging
import shutil
import sys
from pathlib import Path

import click
from PIL import Image
from rich.console import Console

from pipeline.commands import repro
from pipeline.core.arrays import read_arrays
from pipeline.params import Params
from pipeline.stages.promote.packaging import example_request
from pipeline.support import mlflow_runs, mlflow_store
from pipeline.support.locks import SingleInstance

FOLDER = Path("quickstart")
PARAMS = Path(__file__).with_name("quickstart.yaml")
RUNS = "http://127.0.0.1:5000/#/experiments/{}/runs?compareRunsMode=CHART&workflowType=machine_learning"
NEXT = """\
[bold]Done.[/] What to look at next:

  the report      {folder}/reports/report.md, or report.html beside it in a browser
  all commands    source {activate}
  compare runs    mlflow ui
                  [dim]then {runs}[/]
  classify        python -m pipeline classify {folder}/digit.png --model models:/digits@champion
  serve           mlflow models serve -m models:/digits@champion --env-manager local -p 5001
  ask with curl   curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \
-d @{folder}/request.json
  or in Python    python -c "import json, requests; print(requests.post(\
'http://127.0.0.1:5001/invocations', json=json.load(open('{folder}/request.json'))).json())"
  the real job    make repro
                  [dim]CIFAR-10, all variants, some hours[/]"""


@click.command(cls=SingleInstance)
def main() -> None:
    """Copy, run, synchronize and print what is next."""
    root = Path.cwd()
    lay_out(FOLDER, PARAMS.read_text())
    params = Params.read(FOLDER / "params.yaml")
    mlflow_store.anchor(root)
    mlflow_store.check()
    experiment = mlflow_runs.set_experiment(params.data.dataset).experiment_id
    with contextlib.chdir(FOLDER):
        if status := repro.reproduce(params):
            sys.exit(status)
        from pipeline.commands import sync  # TensorFlow, which the workers import themselves

        sync.synchronize()
    image = read_arrays(FOLDER / "data/prepared/test")["images"][0]
    request = {"dataframe_records": example_request(image).to_dict("records")}
    (FOLDER / "request.json").write_text(json.dumps(request) + "\n")
    Image.fromarray(image).save(FOLDER / "digit.png")
    activate = Path(sys.executable).with_name("activate")
    shown = activate.relative_to(root) if activate.is_relative_to(root) else activate
    text = NEXT.format(folder=FOLDER, activate=shown, runs=RUNS.format(experiment))
    Console(highlight=False, soft_wrap=True).print(text)


def lay_out(folder: Path, params: str) -> None:
    """Make or refresh a folder in which the pipeline of this checkout runs with another params.yaml."""
    folder.mkdir(exist_ok=True, parents=True)
    shutil.rmtree(folder / "pipeline", ignore_errors=True)
    shutil.copytree("pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/images").mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", ".dvcignore", "data/images/.gitkeep"):
        shutil.copy(name, folder / name)
    (folder / "params.yaml").write_text(params)
    from dvc.config import Config
    from dvc.repo import Repo

    dvc = folder.absolute() / ".dvc"
    if not dvc.is_dir():
        logging.getLogger("dvc").setLevel(logging.WARNING)  # or it reports this
        Repo.init(str(folder), no_scm=True).close()
    with Config(str(dvc)).edit("local") as config:
        config["core"]["site_cache_dir"] = str(dvc / "tmp/site")  # as `make setup`
    shutil.copytree(".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
