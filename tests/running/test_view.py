"""The live view of the jobs."""

import io
from contextlib import ExitStack, suppress

import pytest
from rich.console import Console

from pipeline.running import view
from pipeline.running.job import WorkerDied
from pipeline.running.view import View


def test_a_terminal_of_80_columns_shows_a_bar_for_each_training(capsys: pytest.CaptureFixture[str]) -> None:
    view.report((14, 40, 0.75))
    epoch = capsys.readouterr().out.rstrip("\n")
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=80)
    with View(console, total=3) as shown, ExitStack() as bars:
        with suppress(WorkerDied), shown.bar("vgg3-0") as died:
            died(epoch)
            raise WorkerDied
        shown.advance(shown.total)
        subset, shallow = (bars.enter_context(shown.bar(n)) for n in ("batchnorm_subset-0", "shallow-0"))
        subset(epoch)
        shallow("shallow  epoch 1/3  is not shown")
        shallow("its run is not complete")
        drawn = Console(file=io.StringIO(), record=True, width=80)
        drawn.print(shown.get_renderable())
    lines = [line.split() for line in drawn.export_text().splitlines()]
    assert [(name, *rest[:2]) for name, _, *rest in lines] == [
        ("all", "1/3", "--:--"),
        ("batchnorm_subset-0", "14/40", "0.7500"),
        ("shallow-0", "0/?"),
    ]
    printed = console.export_text()
    assert "is not shown" not in printed
    assert "shallow-0: its run is not complete" in printed
