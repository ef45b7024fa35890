"""Prints the answers of `classify` batch by batch: as bars, JSON or CSV."""

import json
import sys
from textwrap import indent
from typing import Any

import pandas as pd
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.support.json_and_csv import without_formula

IN_ASCII = str.maketrans("█▉▊▋▌▍▎▏", "#####   ")  # of a bar's blocks
COLUMNS = ["image", "label", "confidence"]
LABELLED = ["actual", "cross_entropy"]  # of images of the data


class Printer:
    """Prints answers to standard output as `json`, as `csv`, or by default as bars."""

    def __init__(self, form: str | None, classes: list[str], labelled: bool) -> None:
        self.form, self.classes = form, classes
        self.columns = COLUMNS + (LABELLED if labelled else [])
        self.begun = False

    def print(self, answers: list[dict[str, Any]]) -> None:
        """Print the answers of a batch, at once."""
        if not answers:
            return
        if self.form == "json":
            for answer in answers:
                text = json.dumps(answer, indent=2, ensure_ascii=False)
                print(",\n" if self.begun else "[\n", indent(text, "  "), sep="", end="")
                self.begun = True
        elif self.form == "csv":
            table = pd.DataFrame(answers)
            classes = pd.DataFrame(list(table["probabilities"]), columns=self.classes)
            columns = table.reindex(columns=self.columns), classes
            quoted = pd.concat(columns, axis=1).map(without_formula).rename(columns=without_formula)
            quoted.to_csv(sys.stdout, index=False, header=not self.begun, lineterminator="\n")
        else:
            show(answers, max(map(len, self.classes)))
        self.begun = True
        sys.stdout.flush()

    def end(self) -> None:
        """Print what follows the last batch."""
        if self.form == "json" and self.begun:
            print("\n]", flush=True)


def show(answers: list[dict[str, Any]], width: int) -> None:
    """Print the probabilities of each image as bars, beside names of this width."""
    console = Console(highlight=False, markup=False)
    with console.capture() as bars:  # printed below, since Rich exits if the pipe is closed
        for answer in answers:
            title = Text(answer["image"], "bold")
            if "actual" in answer:
                title.append(
                    f" is {answer['actual']}, cross-entropy {answer['cross_entropy']:.3f} nats", "not bold"
                )
            if answer["label"] is None:
                title.append(" has no label: the model is not sure enough", "not bold")
            console.print(title, soft_wrap=True)
            table = Table.grid(padding=(0, 1))
            for name, value in answer["probabilities"].items():
                colour = "green" if name == answer.get("actual", answer["label"]) else "bright_black"
                table.add_row(f"  {name:{width}}", Bar(1, 0, value, width=40, color=colour), f"{value:6.1%}")
            console.print(table)
    utf = console.encoding.startswith("utf")
    print(bars.get() if utf else bars.get().translate(IN_ASCII), end="")
