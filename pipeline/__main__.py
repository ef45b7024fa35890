"""The command line.

    python -m pipeline --help

Imports a command's module only to run it, so that the help needs neither TensorFlow nor MLflow.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from pipeline.running import warm_stage
from pipeline.support import environment
from pipeline.support.errors import PipelineError, one_line_errors
from pipeline.support.paths import PARAMS

# The module of each command, whose `main` runs it, and its line of the help.
STAGES = {
    "watch": ("stages.fetch.watch", "List the files of a folder of your own images."),
    "fetch": ("stages.fetch.stage", "Download or read the images."),
    "prepare": ("stages.prepare.stage", "Check the images and split off the validation images."),
    "recipes": ("stages.recipes.stage", "Write the recipe of each variant."),
    "train": ("stages.train.stage", "Train one variant with one seed."),
    "predict": ("stages.predict", "Store the probabilities that a model predicts."),
    "evaluate": ("stages.evaluate.stage", "Score all models, or one, and draw their figures."),
    "select": ("stages.select", "Choose a model on validation data."),
    "promote": ("stages.promote.stage", "Make the chosen model champion."),
    "diagnose": ("stages.diagnose.stage", "Look for weak points of the data and the chosen model."),
    "report": ("stages.report.stage", "Write the report and the model card."),
}
COMMANDS = {
    "quickstart": ("commands.quickstart", "Run the whole pipeline in minutes, on handwritten digits."),
    "photos": ("commands.photos", "Train on a folder of photographs, from a look at them to a served model."),
    "check": ("commands.check", "Check params.yaml."),
    "plan": ("commands.plan", "Print which stages would run."),
    "repro": ("commands.repro", "Run all stages, trainings side by side."),
    "compare": ("commands.compare", "Compare the results with those of another commit."),
    "sync": ("commands.sync", "Log to MLflow what it lacks."),
    "champion": ("commands.champion", "Print which model is champion, since when and why."),
    "rollback": ("commands.rollback", "Make the previous champion champion again."),
    "classify": ("commands.classify", "Classify images."),
    "ui": ("commands.ui", "Serve MLflow's page of runs and models."),
    "demo": ("commands.demo", "Serve a page to try a model on."),
    "serve": ("commands.serve", "Serve a model with MLflow's server."),
    "search": ("commands.search.command", "Search for better settings of a variant."),
}


class Pipeline(click.Group):
    """The stages and the commands around them."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command."""
        if cmd_name not in STAGES | COMMANDS:
            return None
        module, _ = (STAGES | COMMANDS)[cmd_name]
        found: click.Command = import_module(f"pipeline.{module}").main
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write both sections, without importing a module."""
        for title, commands in (("Stages, in their order", STAGES), ("Commands around them", COMMANDS)):
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()])


def enter_job(folder: Path | None) -> None:
    """Run the command in the folder of a job, with the store of this checkout."""
    if folder is None:
        return
    from pipeline.support import mlflow_store

    if not (folder / PARAMS).is_file():
        raise PipelineError(f"--job: {folder} has no {PARAMS}; jobs are quickstart and jobs/NAME")
    mlflow_store.anchor_job(folder)
    os.chdir(folder)


@one_line_errors
def main(arguments: list[str] | None = None) -> None:
    """Run a command; by default the one that the process was started with."""
    environment.complete()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in STAGES and (status := warm_stage.ask(arguments)) is not None:
        sys.exit(status)
    job = click.Option(
        ["--job", "folder"],
        type=click.Path(path_type=Path),
        help="Run in the folder of a job, such as jobs/pets.",
    )
    about = "CIFAR-10 from the archive to a served champion."
    group = Pipeline("pipeline", help=about, params=[job], callback=enter_job)
    status = group.main(arguments, prog_name="python -m pipeline", standalone_mode=False)
    if isinstance(status, int) and status:
        sys.exit(status)


if __name__ == "__main__":
    main()
