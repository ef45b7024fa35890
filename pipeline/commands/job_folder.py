"""A folder of this checkout in which its pipeline runs with another params.yaml: the quickstart, photographs.

Runs and models go to the checkout's MLflow store; data, report and metrics stay in the folder.
"""

import contextlib
import json
import logging
import shutil
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console

from pipeline.commands import repro
from pipeline.commands.check import checked_params
from pipeline.commands.ui import RUNS
from pipeline.core.arrays import read_arrays
from pipeline.stages.promote.packaging import example_request
from pipeline.support import mlflow_registry, mlflow_runs, mlflow_store

LOOK = """\
  the report      {report}
  all commands    source {activate}
  compare runs    mlflow ui
                  [dim]then {runs}[/]
"""
SERVE = """\
  classify        python -m pipeline classify {folder}/{image} --model models:/{name}@champion
  on a page       make demo MODEL={name}
  serve           mlflow models serve -m models:/{name}@champion --env-manager local -p 5001
  ask with curl   curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \
-d @{folder}/request.json
  or in Python    python -c "import json, requests; print(requests.post(\
'http://127.0.0.1:5001/invocations', json=json.load(open('{folder}/request.json'))).json())"
"""


def run(folder: Path, params: str, image: str, last: str) -> None:
    """Run all stages in a folder with this params.yaml, and print what to look at next.

    Writes a test image as `image` and a request with it, so that the printed commands can be run. `last` is
    the last of these lines. Exits with a status if a stage fails.
    """
    lay_out(folder, params)
    checked = checked_params(folder / "params.yaml")
    mlflow_store.anchor_job(folder)
    mlflow_store.check()
    mlflow_runs.set_experiment(checked.data.dataset)
    with contextlib.chdir(folder):
        if status := repro.reproduce(checked):
            sys.exit(status)
        from pipeline.commands import sync  # TensorFlow, which the workers import themselves

        sync.synchronize()
    pixels = read_arrays(folder / "data/prepared/test")["images"][0]
    request = {"dataframe_records": example_request(pixels).to_dict("records")}
    (folder / "request.json").write_text(json.dumps(request) + "\n")
    Image.fromarray(pixels).save(folder / image)
    Console(highlight=False, soft_wrap=True).print(next_steps(folder, checked.data.dataset, image, last))


def next_steps(folder: Path, name: str, image: str, last: str) -> str:
    """What to look at, in Rich's markup; how the champion is served only if there is one."""
    is_served = mlflow_registry.version_at(name, mlflow_registry.CHAMPION) is not None
    title = "Done." if is_served else "Done, but no model became champion, as printed above."
    activate = Path(sys.executable).with_name("activate")
    shown = activate.relative_to(Path.cwd()) if activate.is_relative_to(Path.cwd()) else activate
    runs = RUNS.format("http://127.0.0.1:5000", mlflow_runs.set_experiment(name).experiment_id)
    text = LOOK + SERVE if is_served else LOOK
    report = (folder / "reports/report.html").resolve().as_uri()  # which a click opens
    lines = text.format(folder=folder, report=report, activate=shown, runs=runs, image=image, name=name)
    return f"[bold]{title}[/] What to look at next:\n\n{lines}  {last}"


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
