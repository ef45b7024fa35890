"""results.md and growth.png from results.json: tables and a figure, nothing measured."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks import matrix
from pipeline.stages.report.tables import markdown_table


def write(results: dict[str, Any], folder: Path) -> None:
    """Write both to `folder`, of the parts that there are."""
    sections = [
        f"{text(results[part])}\n\n{_machine(results[part])}"
        for part, text in SECTIONS.items()
        if part in results
    ]
    (folder / "results.md").write_text("\n\n".join(["# Speed", *sections]) + "\n")
    if "growth" in results:
        figure(results["growth"]).savefig(folder / "growth.png", dpi=100)


def _steps(found: dict[str, Any], first: str, second: str) -> str:
    rows = []
    for variant, sides in found["seconds"].items():
        row = {"variant": variant}
        for clock, title in (("wall", "wall"), ("cpu", "CPU")):
            one, other = (sides[side][clock]["median"] for side in (first, second))
            row[f"{first}: {title}"] = f"{one:.2f}"
            row[f"{second}: {title}"] = f"{other:.2f} ({other / one:.2f})"
        for side in (first, second) if "gflops" in found else ():
            row[f"{side}: matrix speed"] = f"{matrix.fraction(found, variant, side):.0%}"
        rows.append(row)
    return (
        f"Seconds per epoch with its validation pass, on {found['images']:,} images in all; the ratio in "
        f"brackets. Medians of {_n(found)} epochs; the sides take turns.\n\n"
        f"{markdown_table(pd.DataFrame(rows))}"
    )


def _n(found: dict[str, Any]) -> str:
    counts = [clocks["wall"]["n"] for sides in found["seconds"].values() for clocks in sides.values()]
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def _step_section(found: dict[str, Any]) -> str:
    return (
        f"## An epoch: notebook and pipeline\n\n{_steps(found, 'notebook', 'pipeline')}\n\n"
        "A notebook's epoch lasts until the next tick of tf.data's autotuning, sometimes twice as long as "
        "its work. Its wall time differs between runs; CPU seconds are more reliable."
        + matrix.EXPLANATION.format(gflops=found["gflops"])
    )


def _bfloat16_section(found: dict[str, Any]) -> str:
    return f"## An epoch: float32 and bfloat16, one thread\n\n{_steps(found, 'float32', 'bfloat16')}"


def _whole_section(found: dict[str, Any]) -> str:
    ways = {
        "notebooks": "the notebooks",
        "before": f"dvc repro of {found.get('commit', '')[:7]}",
        "parallel": f"make repro JOBS={found['jobs']}",
    }
    measured = {title: found[way] for way, title in ways.items() if way in found}
    ratios = [
        f"{found['parallel']['wall'] / found[way]['wall']:.2f} of that of {ways[way]}"
        for way in ("notebooks", "before")
        if way in found
    ]
    text = (
        f"All variants, {found['epochs']} epochs each, {found['images']:,} images; the notebooks train and "
        "score, one after another; the others go from the images to the report. One run each. The wall time "
        f"of `make repro` is {' and '.join(ratios)}."
    )
    return f"## The whole job\n\n{text}\n\n{_seconds('way', measured, 0)}{_further(found.get('further'))}"


def _further(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    few, many = found["trainings"]
    return (
        f"\n\nBeside its epochs, a further training of `shallow` takes {found['cpu']:.1f} CPU seconds from "
        f"its recipe to the report: the difference of a job with {many} trainings and one with {few}."
    )


def _threads_section(found: dict[str, Any]) -> str:
    titles = {"threads": "threads", "jobs": "JOBS", "wall": "wall (s)", "cpu": "CPU (s)"}
    table = pd.DataFrame(found["ways"])[list(titles)].round(0).astype(int).rename(columns=titles)
    return (
        f"## Threads and jobs\n\n{', '.join(found['variants'])}: {found['epochs']} epochs each, "
        f"{found['images']:,} images, from the images to the report, by the threads of a training and the "
        f"jobs at a time. One run each.\n\n{markdown_table(table.astype(str))}"
    )


def _accuracy_section(found: dict[str, Any]) -> str:
    rows = [
        {"precision": name, "mean": f"{of['mean']:.4f}", "sd": f"{of['sd']:.4f}", "n": of["n"]}
        for name, of in found.items()
        if isinstance(of, dict) and "sd" in of
    ]
    return (
        f"## Accuracy in bfloat16\n\nValidation accuracy of `{found['variant']}` after {found['epochs']} "
        f"epochs on {found['images']:,} images, over seeds.\n\n"
        f"{markdown_table(pd.DataFrame(rows))}"
    )


def _start_up_section(found: dict[str, Any]) -> str:
    seconds = {
        stage: {clock: values["median"] for clock, values in clocks.items()}
        for stage, clocks in found["stages"].items()
    }
    return (
        "## Start-up\n\nImporting a stage's modules and, where it has a run, opening MLflow's store: medians "
        f"of {found['stages']['train']['cpu']['n']}. {_nothing_to_do(found['nothing_to_do'])}\n\n"
        f"{_seconds('stage', seconds, 2)}"
    )


def _nothing_to_do(found: dict[str, Any]) -> str:
    if "more" not in found:
        return ""
    return (
        f"`dvc repro` of {found['stages']} stages with nothing to do takes "
        f"{found['finished']['wall']['median']:.2f} s, {found['more']:.2f} more than of as many trivial ones."
    )


def _growth_section(found: dict[str, Any]) -> str:
    images = [
        {"training images": f"{int(count):,}", "epoch (s)": f"{clocks['wall']['median']:.2f}"}
        for count, clocks in _numbered(found["images"])
    ]
    runs = [
        {"runs in the store": f"{int(count):,}"}
        | {f"{stage} (s)": f"{clocks['wall']['median']:.2f}" for stage, clocks in stages.items()}
        for count, stages in _numbered(found["runs"])
    ]
    return (
        "## How cost grows\n\nAn epoch of `deep_dropout` on one thread:\n\n"
        f"{markdown_table(pd.DataFrame(images))}\n\nPromote and report, whole:\n\n"
        f"{markdown_table(pd.DataFrame(runs))}\n\n![How cost grows](growth.png)"
    )


def _numbered(points: dict[str, Any]) -> list[tuple[str, Any]]:
    """Items whose keys are numbers, in the numbers' order: JSON's are in that of their letters."""
    return sorted(points.items(), key=lambda item: int(item[0]))


def _seconds(of: str, rows: dict[str, dict[str, float]], digits: int) -> str:
    """A table of wall and CPU seconds, a row for each of what the first column is `of`."""
    table = [
        {of: name, "wall (s)": f"{clocks['wall']:.{digits}f}", "CPU (s)": f"{clocks['cpu']:.{digits}f}"}
        for name, clocks in rows.items()
    ]
    return markdown_table(pd.DataFrame(table))


def _machine(found: dict[str, Any]) -> str:
    of = found["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in of["packages"].items())
    size = f"{of['cores']} cores, {of['memory_gib']:.0f} GiB"
    return f"Machine: {of['cpu']}, {size}; Python {of['python']}, {packages}."


def figure(found: dict[str, Any]) -> Figure:
    """Time against images and runs."""
    epochs = {count: clocks["wall"]["median"] for count, clocks in found["images"].items()}
    panels = {
        "training images": {"epoch of deep_dropout": epochs},
        "runs in the store": {
            stage: {count: stages[stage]["wall"]["median"] for count, stages in found["runs"].items()}
            for stage in ("promote", "report")
        },
    }
    drawn = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axis, (title, lines) in zip(
        drawn.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for label, points in lines.items():
            xs = sorted(points, key=int)
            axis.plot([int(x) for x in xs], [points[x] for x in xs], "o-", label=label)
        axis.set(xlabel=title, ylabel="wall seconds")
        axis.set_ylim(bottom=0)
        if "runs" in title:
            axis.set_xscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    return drawn


SECTIONS = {
    "steps": _step_section,
    "whole": _whole_section,
    "threads": _threads_section,
    "start-up": _start_up_section,
    "growth": _growth_section,
    "bfloat16": _bfloat16_section,
    "accuracy": _accuracy_section,
}
